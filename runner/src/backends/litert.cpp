// LiteRT by the C functions of its wheel's libLiteRt.so, which brings no headers. Their parameters have changed under the
// same names from one release to the next, and a wrong one crashes: only releases that were tried are taken, told by the
// folder that pip writes beside the library.
#include <dirent.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "backend.hpp"

namespace etl {
namespace {

constexpr const char *tried[] = {"ai_edge_litert-2.3."};
constexpr int32_t host_memory = 1, cpu = 1, to_read = 0, to_write = 1;

// Type and sizes of a tensor, as upstream promises to keep them.
struct TensorType {
  int32_t kind;
  uint32_t rank;  // in the lowest 7 bits
  int32_t sizes[8];
  uint32_t strides[8];
};
static_assert(sizeof(TensorType) == 72, "72 bytes by upstream's own check");

struct Kind {
  int32_t of;
  const char *name;
};
constexpr Kind kinds[] = {{1, "float32"}, {2, "int32"}, {3, "uint8"},   {4, "int64"},
                          {7, "int16"},   {9, "int8"},  {10, "float16"}};

using Handle = void *;
struct Functions {
  int (*LiteRtCreateEnvironment)(int, const void *, Handle *) = nullptr;
  int (*LiteRtCreateModelFromBuffer)(Handle, const void *, size_t, Handle *) = nullptr;
  int (*LiteRtCreateOptions)(Handle *) = nullptr;
  int (*LiteRtSetOptionsHardwareAccelerators)(Handle, int) = nullptr;
  int (*LiteRtCreateOpaqueOptions)(const char *, void *, void (*)(void *), Handle *) = nullptr;
  int (*LiteRtAddOpaqueOptions)(Handle, Handle) = nullptr;
  int (*LiteRtCreateCompiledModel)(Handle, Handle, Handle, Handle *) = nullptr;
  int (*LiteRtGetModelSignature)(Handle, size_t, Handle *) = nullptr;
  int (*LiteRtGetNumSignatureInputs)(Handle, size_t *) = nullptr;
  int (*LiteRtGetNumSignatureOutputs)(Handle, size_t *) = nullptr;
  int (*LiteRtGetSignatureInputTensorByIndex)(Handle, size_t, Handle *) = nullptr;
  int (*LiteRtGetSignatureOutputTensorByIndex)(Handle, size_t, Handle *) = nullptr;
  int (*LiteRtGetTensorName)(Handle, const char **) = nullptr;
  int (*LiteRtGetRankedTensorType)(Handle, TensorType *) = nullptr;
  int (*LiteRtCreateManagedTensorBuffer)(Handle, int, const TensorType *, size_t, Handle *) = nullptr;
  int (*LiteRtLockTensorBuffer)(Handle, void **, int) = nullptr;
  int (*LiteRtUnlockTensorBuffer)(Handle) = nullptr;
  int (*LiteRtRunCompiledModel)(Handle, size_t, size_t, Handle *, size_t, Handle *) = nullptr;
  void (*LiteRtDestroyTensorBuffer)(Handle) = nullptr;
  void (*LiteRtDestroyCompiledModel)(Handle) = nullptr;
  void (*LiteRtDestroyModel)(Handle) = nullptr;
  void (*LiteRtDestroyOptions)(Handle) = nullptr;
  void (*LiteRtDestroyEnvironment)(Handle) = nullptr;
};

struct CloseFolder {
  void operator()(DIR *folder) const { closedir(folder); }
};

// The folder that holds the package's own folder, where pip notes each package's version.
void check_release(const std::string &library) {
  const std::unique_ptr<char, decltype(&free)> real{realpath(library.c_str(), nullptr), free};
  const std::string path = real ? real.get() : library;
  const size_t package = path.rfind('/'), site = package == std::string::npos ? package : path.rfind('/', package - 1);
  const std::unique_ptr<DIR, CloseFolder> entries{opendir(site == std::string::npos ? "." : path.substr(0, site).c_str())};
  while (const dirent *entry = entries ? readdir(entries.get()) : nullptr)
    for (const char *known : tried)
      if (std::strncmp(entry->d_name, known, std::strlen(known)) == 0) return;
  fail(ETL_RUNTIME, library + " is not of LiteRT 2.3, whose functions alone are known: name libLiteRt.so of pip's ai-edge-litert 2.3");
}

template <class F>
void look_up(void *library, const char *name, F &function) {
  void *symbol = dlsym(library, name);
  if (symbol == nullptr) fail(ETL_RUNTIME, std::string("that LiteRT has no function ") + name);
  std::memcpy(&function, &symbol, sizeof function);
}

Functions functions_of(void *library) {
  Functions f;
#define EDGETL_LOOK_UP(name) look_up(library, #name, f.name)
  EDGETL_LOOK_UP(LiteRtCreateEnvironment);
  EDGETL_LOOK_UP(LiteRtCreateModelFromBuffer);
  EDGETL_LOOK_UP(LiteRtCreateOptions);
  EDGETL_LOOK_UP(LiteRtSetOptionsHardwareAccelerators);
  EDGETL_LOOK_UP(LiteRtCreateOpaqueOptions);
  EDGETL_LOOK_UP(LiteRtAddOpaqueOptions);
  EDGETL_LOOK_UP(LiteRtCreateCompiledModel);
  EDGETL_LOOK_UP(LiteRtGetModelSignature);
  EDGETL_LOOK_UP(LiteRtGetNumSignatureInputs);
  EDGETL_LOOK_UP(LiteRtGetNumSignatureOutputs);
  EDGETL_LOOK_UP(LiteRtGetSignatureInputTensorByIndex);
  EDGETL_LOOK_UP(LiteRtGetSignatureOutputTensorByIndex);
  EDGETL_LOOK_UP(LiteRtGetTensorName);
  EDGETL_LOOK_UP(LiteRtGetRankedTensorType);
  EDGETL_LOOK_UP(LiteRtCreateManagedTensorBuffer);
  EDGETL_LOOK_UP(LiteRtLockTensorBuffer);
  EDGETL_LOOK_UP(LiteRtUnlockTensorBuffer);
  EDGETL_LOOK_UP(LiteRtRunCompiledModel);
  EDGETL_LOOK_UP(LiteRtDestroyTensorBuffer);
  EDGETL_LOOK_UP(LiteRtDestroyCompiledModel);
  EDGETL_LOOK_UP(LiteRtDestroyModel);
  EDGETL_LOOK_UP(LiteRtDestroyOptions);
  EDGETL_LOOK_UP(LiteRtDestroyEnvironment);
#undef EDGETL_LOOK_UP
  return f;
}

class LiteRt final : public Backend {
 public:
  LiteRt(const Artifact &artifact, const std::string &library, int threads) : path_(artifact.file) {
    check_release(library);
    lrt_ = functions_of(open_library(library, {"libLiteRt.so"}, "LiteRT"));
    try {
      open(artifact.model, threads);
      describe();
    } catch (...) {
      release();
      throw;
    }
  }
  ~LiteRt() override { release(); }

  void run(const std::vector<const void *> &sample, std::vector<Output> &found) override {
    for (size_t i = 0; i < inputs_.size(); i++) {
      const size_t bytes = sample_bytes(inputs_[i]);
      auto *to = static_cast<char *>(locked(buffers_[i], to_write));
      for (int64_t k = 0; k < inputs_[i].shape[0]; k++) std::memcpy(to + bytes * static_cast<size_t>(k), sample[i], bytes);
      check(lrt_.LiteRtUnlockTensorBuffer(buffers_[i]), "take its input");
    }
    Handle *outputs = buffers_.data() + inputs_.size();
    check(lrt_.LiteRtRunCompiledModel(compiled_, 0, inputs_.size(), buffers_.data(), outputs_.size(), outputs), "run");
    found.resize(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); i++) {
      found[i].shape = outputs_[i].shape;
      found[i].shape[0] = 1;
      found[i].values.resize(sample_bytes(outputs_[i]) / sizeof(float));
      std::memcpy(found[i].values.data(), locked(outputs[i], to_read), found[i].values.size() * sizeof(float));
      check(lrt_.LiteRtUnlockTensorBuffer(outputs[i]), "give its output");
    }
  }

 private:
  void check(int status, const char *what) {
    if (status != 0)
      fail(ETL_RUNTIME, "LiteRT cannot " + std::string(what) + ": " + path_ + " (status " + std::to_string(status) + ")");
  }

  void *locked(Handle buffer, int how) {
    void *data = nullptr;
    check(lrt_.LiteRtLockTensorBuffer(buffer, &data, how), "open its memory");
    return data;
  }

  void open(const std::string &model, int threads) {
    // Kernels read weights where they lie in the file, and take it that they are aligned there.
    bytes_.reset(static_cast<char *>(aligned_alloc(64, (model.size() + 63) / 64 * 64)));
    if (!bytes_) throw std::bad_alloc();
    std::memcpy(bytes_.get(), model.data(), model.size());
    check(lrt_.LiteRtCreateEnvironment(0, nullptr, &environment_), "start");
    check(lrt_.LiteRtCreateModelFromBuffer(environment_, bytes_.get(), model.size(), &model_), "load the model");
    check(lrt_.LiteRtCreateOptions(&options_), "set its options");
    check(lrt_.LiteRtSetOptionsHardwareAccelerators(options_, cpu), "set its options");
    if (threads > 0) set_threads(threads);
    check(lrt_.LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), "load the model");
  }

  void set_threads(int threads) {
    const std::string text = "num_threads = " + std::to_string(threads) + "\n";
    auto copy = owned(strdup(text.c_str()), free);
    Handle opaque = nullptr;
    if (!copy) throw std::bad_alloc();
    check(lrt_.LiteRtCreateOpaqueOptions("xnnpack", copy.get(), free, &opaque), "set its threads");
    (void)copy.release();
    check(lrt_.LiteRtAddOpaqueOptions(options_, opaque), "set its threads");
  }

  void describe() {
    Handle signature = nullptr;
    size_t inputs = 0, outputs = 0;
    check(lrt_.LiteRtGetModelSignature(model_, 0, &signature), "tell its signature");
    check(lrt_.LiteRtGetNumSignatureInputs(signature, &inputs), "tell its inputs");
    check(lrt_.LiteRtGetNumSignatureOutputs(signature, &outputs), "tell its outputs");
    for (size_t i = 0; i < inputs + outputs; i++) {
      const bool in = i < inputs;
      Handle tensor = nullptr;
      check(in ? lrt_.LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor)
               : lrt_.LiteRtGetSignatureOutputTensorByIndex(signature, i - inputs, &tensor),
            "tell its tensors");
      (in ? inputs_ : outputs_).push_back(slot_of(tensor));
    }
    for (const Slot &slot : outputs_)
      if (slot.type != "float32") fail(ETL_UNSUPPORTED, "the output '" + slot.name + "' is of " + slot.type);
  }

  Slot slot_of(Handle tensor) {
    const char *name = nullptr;
    TensorType type{};
    check(lrt_.LiteRtGetTensorName(tensor, &name), "tell a name");
    check(lrt_.LiteRtGetRankedTensorType(tensor, &type), "tell a shape");
    Slot slot{name != nullptr ? name : "", "type " + std::to_string(type.kind), {}};
    for (const Kind &kind : kinds)
      if (kind.of == type.kind) slot.type = kind.name;
    const uint32_t rank = type.rank & 127U;
    if (rank == 0 || rank > 8) fail(ETL_RUNTIME, "LiteRT tells an odd shape of '" + slot.name + "'");
    slot.shape.assign(type.sizes, type.sizes + rank);
    const size_t bytes = sample_bytes(slot) * static_cast<size_t>(slot.shape[0] > 0 ? slot.shape[0] : 0);
    if (bytes == 0) fail(ETL_UNSUPPORTED, "'" + slot.name + "' has no fixed shape");
    Handle buffer = nullptr;
    check(lrt_.LiteRtCreateManagedTensorBuffer(environment_, host_memory, &type, bytes, &buffer), "get memory");
    buffers_.push_back(buffer);
    return slot;
  }

  void release() {
    for (Handle buffer : buffers_) lrt_.LiteRtDestroyTensorBuffer(buffer);
    if (compiled_ != nullptr) lrt_.LiteRtDestroyCompiledModel(compiled_);
    if (options_ != nullptr) lrt_.LiteRtDestroyOptions(options_);
    if (model_ != nullptr) lrt_.LiteRtDestroyModel(model_);
    if (environment_ != nullptr) lrt_.LiteRtDestroyEnvironment(environment_);
  }

  struct Free {
    void operator()(char *bytes) const { free(bytes); }
  };

  std::string path_;
  Functions lrt_;
  std::unique_ptr<char, Free> bytes_;  // of the model's file, as long as the model lives
  Handle environment_ = nullptr, model_ = nullptr, options_ = nullptr, compiled_ = nullptr;
  std::vector<Handle> buffers_;  // inputs, then outputs
};

}  // namespace

std::unique_ptr<Backend> open_litert(Artifact artifact, const std::string &library, int threads) {
  return std::make_unique<LiteRt>(artifact, library, threads);
}

}  // namespace etl
