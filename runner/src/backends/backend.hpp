// What the runner asks of an inference runtime.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../bundle.hpp"

namespace etl {

// An input or output of a network: numpy's name of its type, and sizes, -1 where any is accepted.
struct Slot {
  std::string name, type;
  std::vector<int64_t> shape;
};

// One output of one run, as float.
struct Output {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Backend {
 public:
  Backend() = default;
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;
  virtual ~Backend() = default;

  const std::vector<Slot> &inputs() const { return inputs_; }
  const std::vector<Slot> &outputs() const { return outputs_; }

  // Run one sample, whose arrays lie in the order of inputs(); `found` is filled in the order of outputs() and its
  // memory used again. A network of a fixed batch gets copies, whose outputs are left out. Throws Failure.
  virtual void run(const std::vector<const void *> &sample, std::vector<Output> &found) = 0;

 protected:
  std::vector<Slot> inputs_, outputs_;
};

// Bytes of one item of a type; 0 for one that is not known.
inline size_t type_bytes(const std::string &type) {
  if (type == "uint8" || type == "int8" || type == "bool") return 1;
  if (type == "float16" || type == "int16" || type == "uint16") return 2;
  if (type == "float32" || type == "int32" || type == "uint32") return 4;
  return type == "float64" || type == "int64" || type == "uint64" ? 8 : 0;
}

// Bytes of one sample; 0 where an axis besides the batch's is open, or where they are more than a machine has.
inline size_t sample_bytes(const Slot &slot) {
  constexpr size_t most = size_t{1} << (sizeof(size_t) * 8 - 8);
  size_t bytes = type_bytes(slot.type);
  for (size_t i = 1; i < slot.shape.size() && bytes != 0; i++) {
    const size_t size = slot.shape[i] < 0 ? 0 : static_cast<size_t>(slot.shape[i]);
    bytes = size == 0 || bytes > most / size ? 0 : bytes * size;
  }
  return bytes;
}

// Something of a runtime's that is given back however its block is left.
template <class T, class F>
std::unique_ptr<T, F> owned(T *held, F give_back) {
  return {held, give_back};
}

// A shared library, opened by a path or else by the first of its usual names, and never closed: runtimes keep threads.
void *open_library(const std::string &path, const std::vector<std::string> &names, const std::string &what);

// Each throws Failure; also where its headers were not there when the runner was compiled.
std::unique_ptr<Backend> open_onnxruntime(Artifact artifact, const std::string &library, int threads);
std::unique_ptr<Backend> open_openvino(Artifact artifact, const std::string &library, int threads);
std::unique_ptr<Backend> open_litert(Artifact artifact, const std::string &library, int threads);
std::unique_ptr<Backend> open_tensorrt(Artifact artifact, const std::string &library, int threads);

// The backend that the artifact is made for. Throws Failure.
std::unique_ptr<Backend> open_backend(Artifact artifact, const std::string &library, int threads);

}  // namespace etl
