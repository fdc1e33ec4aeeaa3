// TensorRT by its C++ API, whose classes are all virtual: the library is opened while running, of the release that the
// headers are of, for those promise nothing to another one. An engine is built on the device that runs it, from the
// bundle's ONNX file, and kept in the user's cache; never in a bundle, where anybody may have put one. The CUDA driver
// alone does the rest, as in edgetl/runtime/cuda.py.
#include "backend.hpp"

#ifdef EDGETL_TENSORRT
#include <NvInferRuntime.h>
#include <cuda.h>
#include <dlfcn.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>

namespace etl {
namespace {

using nvinfer1::DataType;

constexpr uint64_t most_engine = uint64_t{8} << 30;

struct Kind {
  DataType of;
  const char *name;
  size_t bytes;
};
constexpr std::array<Kind, 6> kinds{{{DataType::kFLOAT, "float32", 4},
                                     {DataType::kHALF, "float16", 2},
                                     {DataType::kINT8, "int8", 1},
                                     {DataType::kUINT8, "uint8", 1},
                                     {DataType::kINT32, "int32", 4},
                                     {DataType::kINT64, "int64", 8}}};

#define EDGETL_CUDA_FUNCTIONS(each)                                                                            \
  each(cuInit) each(cuDeviceGet) each(cuDeviceGetAttribute) each(cuDeviceGetName) each(cuDevicePrimaryCtxRetain) \
  each(cuDevicePrimaryCtxRelease) each(cuCtxPushCurrent) each(cuCtxPopCurrent) each(cuStreamCreate)            \
  each(cuStreamDestroy) each(cuStreamSynchronize) each(cuMemAlloc) each(cuMemFree) each(cuMemAllocHost)        \
  each(cuMemFreeHost) each(cuMemcpyHtoDAsync) each(cuMemcpyDtoHAsync)

template <class F>
void look_up(void *library, const char *name, F &function) {
  void *symbol = dlsym(library, name);
  if (symbol == nullptr) fail(ETL_RUNTIME, std::string("the library has no function ") + name + ": take a newer one");
  std::memcpy(&function, &symbol, sizeof function);
}

struct Cuda {
#define EDGETL_MEMBER(name) decltype(&::name) name##_ = nullptr;
  EDGETL_CUDA_FUNCTIONS(EDGETL_MEMBER)
#undef EDGETL_MEMBER
  CUdevice device = 0;
  CUcontext context = nullptr;

  Cuda() {
    void *library = open_library("", {"libcuda.so.1"}, "NVIDIA's driver");
// Expanded first: the header gives some functions the names of their later versions.
#define EDGETL_TEXT(name) #name
#define EDGETL_NAME(name) EDGETL_TEXT(name)
#define EDGETL_LOOK_UP(name) look_up(library, EDGETL_NAME(name), name##_);
    EDGETL_CUDA_FUNCTIONS(EDGETL_LOOK_UP)
#undef EDGETL_LOOK_UP
#undef EDGETL_NAME
#undef EDGETL_TEXT
  }
};

void check(CUresult status, const char *what) {
  if (status == CUDA_ERROR_OUT_OF_MEMORY) fail(ETL_MEMORY, std::string("the GPU has no memory left to ") + what);
  if (status != CUDA_SUCCESS)
    fail(ETL_RUNTIME, std::string("the GPU cannot ") + what + " (CUDA " + std::to_string(static_cast<int>(status)) + ")");
}

// Whatever thread asks: the driver knows a current context for each.
class Current {
 public:
  explicit Current(const Cuda &cuda) : cuda_(cuda) { check(cuda_.cuCtxPushCurrent_(cuda_.context), "be used"); }
  Current(const Current &) = delete;
  Current &operator=(const Current &) = delete;
  ~Current() {
    CUcontext before = nullptr;
    (void)cuda_.cuCtxPopCurrent_(&before);
  }

 private:
  const Cuda &cuda_;
};

// Keeps the last message; TensorRT calls it from threads of its own.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, nvinfer1::AsciiChar const *text) noexcept override {
    if (severity > Severity::kERROR || text == nullptr) return;
    const std::lock_guard<std::mutex> held(lock_);
    std::strncpy(text_.data(), text, text_.size() - 1);
  }
  std::string text() {
    const std::lock_guard<std::mutex> held(lock_);
    return text_.data();
  }

 private:
  std::mutex lock_;
  std::array<char, 400> text_{};
};

// --- an engine's name, as edgetl/runtime/build_engine.py and build_engine.sh give it ---

// The kernel's files do not tell their size.
std::string content_of(const char *path) {
  std::ifstream stream(path, std::ios::binary);
  std::array<char, 4096> text{};
  stream.read(text.data(), text.size());
  return {text.data(), static_cast<size_t>(stream.gcount())};
}

std::string stripped(std::string text) {
  const std::string blank("\0\n ", 3);
  text.erase(0, std::min(text.find_first_not_of(blank), text.size()));
  text.erase(text.find_last_not_of(blank) + 1);
  return text;
}

std::string system_release() {
  const std::string text = content_of("/etc/nv_tegra_release");
  int major = 0;
  char revision[32] = "";
  if (!text.empty())
    return std::sscanf(text.c_str(), "# R%d (release), REVISION: %31[0-9.]", &major, revision) == 2
               ? "l4t" + std::to_string(major) + "." + revision
               : "l4t-unknown";
  utsname names{};
  if (uname(&names) != 0) return "unknown";
  std::string name = std::string(names.sysname) + "-" + names.machine;
  for (char &c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return name;
}

std::string engine_name(const Cuda &cuda, int32_t version, const std::string &sha256) {
  std::array<char, 256> name{};
  int major = 0, minor = 0;
  check(cuda.cuDeviceGetName_(name.data(), static_cast<int>(name.size()) - 1, cuda.device), "tell its name");
  check(cuda.cuDeviceGetAttribute_(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, cuda.device), "tell its kind");
  check(cuda.cuDeviceGetAttribute_(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, cuda.device), "tell its kind");
  const std::string board = stripped(content_of("/proc/device-tree/model"));
  std::string machine = "trt" + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
                        std::to_string(version % 100) + "-sm" + std::to_string(major) + std::to_string(minor) + "-" +
                        (board.empty() ? name.data() : board) + "-" + system_release();
  for (char &c : machine)
    if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && std::strchr("._-", c) == nullptr)
      c = '_';
  return "model-" + machine + "-b1-" + sha256.substr(0, 16) + ".engine";
}

std::string engines_folder() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const std::string base = cache != nullptr && *cache != '\0' ? cache : std::string(home != nullptr ? home : "") + "/.cache";
  return base + "/edgetl/engines/";
}

// The engine's bytes, as whoever built it wrote them.
std::string engine_of(const Cuda &cuda, int32_t version, const Artifact &artifact) {
  const std::string digest = sha256(artifact.model), folder = engines_folder() + digest;
  const std::string path = folder + "/" + engine_name(cuda, version, digest);
  std::string engine, recorded;
  try {
    read_file((path + ".sha256").c_str(), 1024, ETL_RUNTIME, recorded);
    read_file(path.c_str(), most_engine, ETL_RUNTIME, engine);
  } catch (const Failure &) {
    engine.clear();
  }
  if (engine.empty() || sha256(engine) != stripped(recorded))
    fail(ETL_RUNTIME, "this machine has no engine of " + artifact.file + ": beside it run: sh build_engine.sh --out '" +
                          folder + "'");
  return engine;
}

// A tensor's memory on both sides.
struct Place {
  CUdeviceptr device = 0;
  void *host = nullptr;
  size_t bytes = 0;
};

class TensorRt final : public Backend {
 public:
  TensorRt(const Artifact &artifact, const std::string &library) : path_(artifact.file) {
    try {
      open(artifact, library);
    } catch (...) {
      release();
      throw;
    }
  }
  ~TensorRt() override { release(); }

  void run(const std::vector<const void *> &sample, std::vector<Output> &found) override {
    const Current current(cuda_);
    for (size_t i = 0; i < inputs_.size(); i++) {
      const size_t bytes = sample_bytes(inputs_[i]);
      for (size_t at = 0; at < places_[i].bytes; at += bytes)
        std::memcpy(static_cast<char *>(places_[i].host) + at, sample[i], bytes);
    }
    const char *failed = queue();
    // Also when it failed: what is queued still reads the memory that the next run writes.
    check(cuda_.cuStreamSynchronize_(stream_), "finish");
    if (failed != nullptr) refuse(failed);
    found.resize(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); i++) {
      found[i].shape = outputs_[i].shape;
      found[i].shape[0] = 1;
      found[i].values.resize(sample_bytes(outputs_[i]) / sizeof(float));
      std::memcpy(found[i].values.data(), places_[inputs_.size() + i].host, found[i].values.size() * sizeof(float));
    }
  }

 private:
  [[noreturn]] void refuse(const char *what) {
    fail(ETL_RUNTIME, std::string("TensorRT cannot ") + what + " " + path_ + " (" + log_.text() + ")");
  }

  const char *queue() {
    const char *failed = nullptr;
    for (size_t i = 0; i < inputs_.size(); i++)
      if (cuda_.cuMemcpyHtoDAsync_(places_[i].device, places_[i].host, places_[i].bytes, stream_) != CUDA_SUCCESS)
        failed = "take the input of";
    if (failed == nullptr && !context_->enqueueV3(stream_)) failed = "execute the engine of";
    for (size_t i = inputs_.size(); failed == nullptr && i < places_.size(); i++)
      if (cuda_.cuMemcpyDtoHAsync_(places_[i].host, places_[i].device, places_[i].bytes, stream_) != CUDA_SUCCESS)
        failed = "give the output of";
    return failed;
  }

  void open(const Artifact &artifact, const std::string &library) {
    if (cuda_.cuInit_(0) != CUDA_SUCCESS || cuda_.cuDeviceGet_(&cuda_.device, 0) != CUDA_SUCCESS)
      fail(ETL_RUNTIME, "this machine has no NVIDIA GPU to run a TensorRT engine");
    check(cuda_.cuDevicePrimaryCtxRetain_(&cuda_.context, cuda_.device), "be used");
    void *held = open_library(library, {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)}, "TensorRT");
    decltype(&getInferLibVersion) version = nullptr;
    decltype(&createInferRuntime_INTERNAL) create = nullptr;
    look_up(held, "getInferLibVersion", version);
    look_up(held, "createInferRuntime_INTERNAL", create);
    if (version() / 10000 != NV_TENSORRT_MAJOR)
      fail(ETL_RUNTIME, "that TensorRT is of release " + std::to_string(version() / 10000) +
                            ", and this runner was built for " + std::to_string(NV_TENSORRT_MAJOR));
    const Current current(cuda_);
    const std::string engine = engine_of(cuda_, version(), artifact);
    check(cuda_.cuStreamCreate_(&stream_, CU_STREAM_NON_BLOCKING), "start");
    runtime_ = static_cast<nvinfer1::IRuntime *>(create(static_cast<nvinfer1::ILogger *>(&log_), NV_TENSORRT_VERSION));
    if (runtime_ == nullptr) refuse("start for");
    engine_ = runtime_->deserializeCudaEngine(engine.data(), engine.size());
    if (engine_ == nullptr) refuse("load the engine, which is to be built again, of");
    context_ = engine_->createExecutionContext();
    if (context_ == nullptr) refuse("get memory for");
    describe();
    arrange();
  }

  void describe() {
    for (int32_t i = 0; i < engine_->getNbIOTensors(); i++) {
      const char *name = engine_->getIOTensorName(i);
      if (engine_->getTensorLocation(name) != nvinfer1::TensorLocation::kDEVICE)
        fail(ETL_UNSUPPORTED, std::string("'") + name + "' is a shape and no array: make it a constant of the model");
      const DataType type = engine_->getTensorDataType(name);
      const bool in = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
      Slot slot{name, "type " + std::to_string(static_cast<int>(type)), {}};
      for (const Kind &kind : kinds)
        if (kind.of == type) slot.type = kind.name;
      const nvinfer1::Dims dims = engine_->getTensorShape(name);
      for (int32_t axis = 0; axis < dims.nbDims; axis++) slot.shape.push_back(dims.d[axis]);
      if (slot.shape.empty()) fail(ETL_UNSUPPORTED, "'" + slot.name + "' is a single number");
      if (!in && slot.type != "float32")
        fail(ETL_UNSUPPORTED, "the output '" + slot.name + "' is of " + slot.type + ": export it as float");
      (in ? inputs_ : outputs_).push_back(std::move(slot));
    }
  }

  // One sample, or the batch that the engine is fixed to.
  void arrange() {
    for (const Slot &slot : inputs_) {
      const nvinfer1::Dims dims = sized(slot);
      if (sample_bytes(slot) == 0 || !context_->setInputShape(slot.name.c_str(), dims))
        fail(ETL_UNSUPPORTED, "the engine takes no single sample of '" + slot.name + "': build it for one");
      bind(slot.name, sample_bytes(slot) * static_cast<size_t>(dims.d[0]));
    }
    for (Slot &slot : outputs_) {
      const nvinfer1::Dims dims = context_->getTensorShape(slot.name.c_str());
      slot.shape.assign(dims.d, dims.d + std::max(dims.nbDims, 0));
      if (slot.shape.empty() || slot.shape[0] < 1 || sample_bytes(slot) == 0)
        fail(ETL_UNSUPPORTED, "the size of '" + slot.name + "' depends on what is computed");
      bind(slot.name, sample_bytes(slot) * static_cast<size_t>(slot.shape[0]));
    }
  }

  static nvinfer1::Dims sized(const Slot &slot) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(slot.shape.size());
    std::copy(slot.shape.begin(), slot.shape.end(), dims.d);
    if (dims.d[0] < 1) dims.d[0] = 1;
    return dims;
  }

  void bind(const std::string &name, size_t bytes) {
    places_.emplace_back();
    Place &place = places_.back();
    place.bytes = bytes;
    check(cuda_.cuMemAlloc_(&place.device, bytes), "hold a tensor");
    check(cuda_.cuMemAllocHost_(&place.host, bytes), "hold a tensor");
    if (!context_->setTensorAddress(name.c_str(), reinterpret_cast<void *>(place.device))) refuse("take memory for");
  }

  void release() {
    if (cuda_.context == nullptr) return;
    CUcontext before = nullptr;
    (void)cuda_.cuCtxPushCurrent_(cuda_.context);
    delete context_;
    delete engine_;
    delete runtime_;
    for (const Place &place : places_) {
      if (place.device != 0) (void)cuda_.cuMemFree_(place.device);
      if (place.host != nullptr) (void)cuda_.cuMemFreeHost_(place.host);
    }
    if (stream_ != nullptr) (void)cuda_.cuStreamDestroy_(stream_);
    (void)cuda_.cuCtxPopCurrent_(&before);
    (void)cuda_.cuDevicePrimaryCtxRelease_(cuda_.device);
    cuda_.context = nullptr;
  }

  std::string path_;
  Log log_;
  Cuda cuda_;
  CUstream stream_ = nullptr;
  nvinfer1::IRuntime *runtime_ = nullptr;
  nvinfer1::ICudaEngine *engine_ = nullptr;
  nvinfer1::IExecutionContext *context_ = nullptr;
  std::vector<Place> places_;  // of inputs, then of outputs
};

}  // namespace

std::unique_ptr<Backend> open_tensorrt(Artifact artifact, const std::string &library, int) {
  return std::make_unique<TensorRt>(artifact, library);
}

}  // namespace etl

#else

namespace etl {
std::unique_ptr<Backend> open_tensorrt(Artifact, const std::string &, int) {
  fail(ETL_UNSUPPORTED, "this runner was built without TensorRT, whose headers were not found");
}
}  // namespace etl

#endif
