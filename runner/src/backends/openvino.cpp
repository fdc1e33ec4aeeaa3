// OpenVINO by its C API, opened while running: the name of its library changes with every release.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "backend.hpp"

#ifdef EDGETL_OPENVINO
#include <dlfcn.h>
#include <openvino/c/openvino.h>

namespace etl {
namespace {

struct Kind {
  ov_element_type_e of;
  const char *name;
};
constexpr Kind kinds[] = {{U8, "uint8"},   {I8, "int8"},      {F32, "float32"}, {F64, "float64"},
                          {F16, "float16"}, {I32, "int32"}, {I64, "int64"}};

std::string name_of(ov_element_type_e of) {
  for (const Kind &kind : kinds)
    if (kind.of == of) return kind.name;
  return "type " + std::to_string(static_cast<int>(of));
}

// The functions of the library that are used, by their own names and types.
#define EDGETL_OPENVINO_FUNCTIONS(each)                                                                        \
  each(ov_core_create) each(ov_core_read_model_from_memory_buffer) each(ov_core_compile_model)                 \
  each(ov_model_free) each(ov_compiled_model_free) each(ov_compiled_model_create_infer_request)                \
  each(ov_compiled_model_inputs_size) each(ov_compiled_model_outputs_size)                                     \
  each(ov_compiled_model_input_by_index) each(ov_compiled_model_output_by_index) each(ov_port_get_any_name)    \
  each(ov_port_get_partial_shape) each(ov_port_get_element_type) each(ov_output_const_port_free)               \
  each(ov_partial_shape_free) each(ov_free) each(ov_tensor_create) each(ov_tensor_data) each(ov_tensor_free)   \
  each(ov_tensor_set_shape) each(ov_tensor_get_shape) each(ov_tensor_get_element_type) each(ov_shape_free)     \
  each(ov_infer_request_free) each(ov_infer_request_infer) each(ov_infer_request_get_input_tensor_by_index)    \
  each(ov_infer_request_get_output_tensor_by_index) each(ov_get_last_err_msg) each(ov_get_error_info)

struct Functions {
#define EDGETL_MEMBER(name) decltype(&::name) name = nullptr;
  EDGETL_OPENVINO_FUNCTIONS(EDGETL_MEMBER)
#undef EDGETL_MEMBER
  ov_core_t *core = nullptr;
};

template <class F>
void look_up(void *library, const char *name, F &function) {
  void *symbol = dlsym(library, name);
  if (symbol == nullptr) fail(ETL_RUNTIME, std::string("that OpenVINO has no function ") + name + ": take 2026 or later");
  std::memcpy(&function, &symbol, sizeof function);
}

std::vector<std::string> usual_names() {
  std::vector<std::string> names{"libopenvino_c.so"};
  // 2641 is 2026.4.1: the newest that is known first.
  for (int release = 2699; release >= 2600; release--) names.push_back("libopenvino_c.so." + std::to_string(release));
  return names;
}

// One core for the process, which stays: each further one would take the stack of signal handlers from the one before
// (edgetl/runtime/ov.py).
Functions &functions_of(const std::string &path) {
  static std::mutex lock;
  static auto *known = new std::map<std::string, Functions>;
  const std::lock_guard<std::mutex> held(lock);
  const auto found = known->find(path);
  if (found != known->end()) return found->second;
  void *library = open_library(path, usual_names(), "OpenVINO");
  Functions functions;
#define EDGETL_LOOK_UP(name) look_up(library, #name, functions.name);
  EDGETL_OPENVINO_FUNCTIONS(EDGETL_LOOK_UP)
#undef EDGETL_LOOK_UP
  if (functions.ov_core_create(&functions.core) != OK) fail(ETL_RUNTIME, "OpenVINO does not start");
  return known->emplace(path, functions).first->second;
}

class OpenVino final : public Backend {
 public:
  OpenVino(const Artifact &artifact, const std::string &library, int threads)
      : path_(artifact.file), ov_(functions_of(library)) {
    try {
      open(artifact, threads);
      describe();
    } catch (...) {
      release();
      throw;
    }
  }
  ~OpenVino() override { release(); }

  void run(const std::vector<const void *> &sample, std::vector<Output> &found) override {
    for (size_t i = 0; i < inputs_.size(); i++) feed(i, sample[i]);
    check(ov_.ov_infer_request_infer(request_));
    found.resize(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); i++) read(i, found[i]);
  }

 private:
  void check(ov_status_e status) {
    if (status == OK) return;
    const char *text = ov_.ov_get_last_err_msg();
    const std::string why = text != nullptr && *text != '\0' ? text : ov_.ov_get_error_info(status);
    fail(ETL_RUNTIME, "OpenVINO cannot run " + path_ + " (" + why.substr(0, 400) + ")");
  }

  // The settings of edgetl/runtime/ov.py, so that both give the same numbers.
  void open(const Artifact &artifact, int threads) {
    const int64_t bytes[1] = {static_cast<int64_t>(artifact.weights.size())};
    if (!artifact.weights.empty()) {
      ov_shape_t shape{1, const_cast<int64_t *>(bytes)};
      check(ov_.ov_tensor_create(U8, shape, &weights_));
      void *data = nullptr;
      check(ov_.ov_tensor_data(weights_, &data));
      std::memcpy(data, artifact.weights.data(), artifact.weights.size());
    }
    check(ov_.ov_core_read_model_from_memory_buffer(ov_.core, artifact.model.data(), artifact.model.size(), weights_,
                                                    &model_));
    const std::string device = artifact.device.empty() ? "CPU" : artifact.device;
    const std::string precision = artifact.precision == "fp16" ? "f16" : "f32";
    const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    const std::string count = std::to_string(threads > 0 ? threads : cores);
    if (device == "CPU")
      check(ov_.ov_core_compile_model(ov_.core, model_, device.c_str(), 6, &compiled_, "PERFORMANCE_HINT", "LATENCY",
                                      "INFERENCE_PRECISION_HINT", precision.c_str(), "INFERENCE_NUM_THREADS",
                                      count.c_str()));
    else if (device == "GPU")
      check(ov_.ov_core_compile_model(ov_.core, model_, device.c_str(), 4, &compiled_, "PERFORMANCE_HINT", "LATENCY",
                                      "INFERENCE_PRECISION_HINT", precision.c_str()));
    else
      check(ov_.ov_core_compile_model(ov_.core, model_, device.c_str(), 2, &compiled_, "PERFORMANCE_HINT", "LATENCY"));
    check(ov_.ov_compiled_model_create_infer_request(compiled_, &request_));
  }

  void describe() {
    size_t inputs = 0, outputs = 0;
    check(ov_.ov_compiled_model_inputs_size(compiled_, &inputs));
    check(ov_.ov_compiled_model_outputs_size(compiled_, &outputs));
    for (size_t i = 0; i < inputs + outputs; i++) {
      ov_output_const_port_t *port = nullptr;
      const bool in = i < inputs;
      check(in ? ov_.ov_compiled_model_input_by_index(compiled_, i, &port)
               : ov_.ov_compiled_model_output_by_index(compiled_, i - inputs, &port));
      const auto held = owned(port, ov_.ov_output_const_port_free);
      (in ? inputs_ : outputs_).push_back(slot_of(port));
    }
  }

  Slot slot_of(const ov_output_const_port_t *port) {
    char *name = nullptr;
    ov_partial_shape_t shape{};
    ov_element_type_e kind = DYNAMIC;
    check(ov_.ov_port_get_any_name(port, &name));
    Slot slot;
    {
      const auto held = owned(name, [&](const char *text) { ov_.ov_free(text); });
      slot.name = name;
    }
    check(ov_.ov_port_get_element_type(port, &kind));
    check(ov_.ov_port_get_partial_shape(port, &shape));
    const auto held = owned(&shape, ov_.ov_partial_shape_free);
    for (int64_t i = 0; i < shape.rank.max; i++)
      slot.shape.push_back(shape.dims[i].min == shape.dims[i].max ? shape.dims[i].max : -1);
    slot.type = name_of(kind);
    return slot;
  }

  void feed(size_t index, const void *sample) {
    const Slot &slot = inputs_[index];
    const size_t bytes = sample_bytes(slot);
    const int64_t batch = slot.shape.empty() || slot.shape[0] < 1 ? 1 : slot.shape[0];
    ov_tensor_t *tensor = nullptr;
    void *data = nullptr;
    check(ov_.ov_infer_request_get_input_tensor_by_index(request_, index, &tensor));
    const auto held = owned(tensor, ov_.ov_tensor_free);
    shape_ = slot.shape;
    if (!shape_.empty()) shape_[0] = batch;
    ov_status_e status = ov_.ov_tensor_set_shape(tensor, {static_cast<int64_t>(shape_.size()), shape_.data()});
    if (status == OK) status = ov_.ov_tensor_data(tensor, &data);
    for (int64_t i = 0; status == OK && i < batch; i++)
      std::memcpy(static_cast<char *>(data) + bytes * static_cast<size_t>(i), sample, bytes);
    check(status);
  }

  // The first sample of an output.
  void read(size_t index, Output &found) {
    ov_tensor_t *tensor = nullptr;
    ov_shape_t shape{};
    ov_element_type_e kind = DYNAMIC;
    void *data = nullptr;
    check(ov_.ov_infer_request_get_output_tensor_by_index(request_, index, &tensor));
    const auto held = owned(tensor, ov_.ov_tensor_free);
    check(ov_.ov_tensor_get_shape(tensor, &shape));
    found.shape.assign(shape.dims, shape.dims + (shape.dims != nullptr ? shape.rank : 0));
    if (shape.dims != nullptr) ov_.ov_shape_free(&shape);
    check(ov_.ov_tensor_get_element_type(tensor, &kind));
    const std::string &name = outputs_[index].name;
    size_t count = found.shape.empty() || found.shape[0] < 1 ? 0 : 1;
    for (size_t i = 1; i < found.shape.size(); i++) count *= static_cast<size_t>(found.shape[i]);
    if (count == 0) fail(ETL_RUNTIME, "the output '" + name + "' holds no sample");
    if (kind != F32 && kind != F64)
      fail(ETL_UNSUPPORTED, "the output '" + name + "' is of " + name_of(kind) + ": export it as float");
    check(ov_.ov_tensor_data(tensor, &data));
    found.values.resize(count);
    if (kind == F32) std::memcpy(found.values.data(), data, count * sizeof(float));
    else std::copy_n(static_cast<const double *>(data), count, found.values.begin());
  }

  void release() {
    if (request_ != nullptr) ov_.ov_infer_request_free(request_);
    if (compiled_ != nullptr) ov_.ov_compiled_model_free(compiled_);
    if (model_ != nullptr) ov_.ov_model_free(model_);
    if (weights_ != nullptr) ov_.ov_tensor_free(weights_);
  }

  std::string path_;
  Functions &ov_;
  ov_tensor_t *weights_ = nullptr;
  ov_model_t *model_ = nullptr;
  ov_compiled_model_t *compiled_ = nullptr;
  ov_infer_request_t *request_ = nullptr;
  std::vector<int64_t> shape_;
};

}  // namespace

std::unique_ptr<Backend> open_openvino(Artifact artifact, const std::string &library, int threads) {
  return std::make_unique<OpenVino>(artifact, library, threads);
}

}  // namespace etl

#else

namespace etl {
std::unique_ptr<Backend> open_openvino(Artifact, const std::string &, int) {
  fail(ETL_UNSUPPORTED, "this runner was built without OpenVINO, whose headers were not found");
}
}  // namespace etl

#endif
