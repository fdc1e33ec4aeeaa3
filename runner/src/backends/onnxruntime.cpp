// ONNX Runtime by its C API. The library is opened while running and never linked: its symbols bear the version of one
// release, and its names differ between wheels and distributions; the table that it hands out does not.
#include <algorithm>
#include <cstring>
#include <thread>

#include "backend.hpp"

#ifdef EDGETL_ONNXRUNTIME
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace etl {
namespace {

struct Kind {
  ONNXTensorElementDataType of;
  const char *name;
};
constexpr Kind kinds[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "uint8"},     {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, "int8"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float32"},   {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "float64"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "float16"}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "int64"},
};

ONNXTensorElementDataType kind_of(const std::string &name) {
  for (const Kind &kind : kinds)
    if (name == kind.name) return kind.of;
  fail(ETL_RUNTIME, "the model's input is of a type that is not fed: " + name);
}

std::string name_of(ONNXTensorElementDataType of) {
  for (const Kind &kind : kinds)
    if (kind.of == of) return kind.name;
  return "type " + std::to_string(of);
}

// x86-64 without VNNI adds two products of 8 bits in 16, where they can saturate: as edgetl/runtime/machine.py.
bool saturates() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool wide = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c >> 11 & 1) != 0;
  const bool narrow = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
  return !wide && !narrow;
#else
  return false;
#endif
}

class OnnxRuntime final : public Backend {
 public:
  OnnxRuntime(const Artifact &artifact, const std::string &library, int threads) : path_(artifact.file) {
    load(library);
    try {
      check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgetl", &env_));
      open(artifact.model, threads);
      check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory_));
      describe();
    } catch (...) {
      release();
      throw;
    }
  }
  ~OnnxRuntime() override { release(); }

  void run(const std::vector<const void *> &sample, std::vector<Output> &found) override {
    try {
      for (size_t i = 0; i < inputs_.size(); i++) values_[i] = value_of(i, sample[i]);
      check(api_->Run(session_, nullptr, names_.data(), values_.data(), inputs_.size(), names_.data() + inputs_.size(),
                      outputs_.size(), values_.data() + inputs_.size()));
      found.resize(outputs_.size());
      for (size_t i = 0; i < outputs_.size(); i++) read(values_[inputs_.size() + i], outputs_[i].name, found[i]);
    } catch (...) {
      forget();
      throw;
    }
    forget();
  }

 private:
  void load(const std::string &library) {
    void *held = open_library(library, {"libonnxruntime.so.1", "libonnxruntime.so"}, "ONNX Runtime");
    using Base = const OrtApiBase *(*)();
    Base base = nullptr;
    void *symbol = dlsym(held, "OrtGetApiBase");
    std::memcpy(&base, &symbol, sizeof base);
    api_ = base != nullptr ? base()->GetApi(ORT_API_VERSION) : nullptr;
    if (api_ == nullptr)
      fail(ETL_RUNTIME, "that ONNX Runtime is older than API " + std::to_string(ORT_API_VERSION) + ": take a newer one");
  }

  void check(OrtStatus *status) {
    if (status == nullptr) return;
    const std::string text = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    fail(ETL_RUNTIME, "ONNX Runtime cannot run " + path_ + " (" + text.substr(0, 400) + ")");
  }

  void forget(OrtStatus *status) {
    if (status != nullptr) api_->ReleaseStatus(status);
  }

  // The settings of edgetl/runtime/ort.py, so that both give the same numbers.
  void open(const std::string &model, int threads) {
    const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    check(api_->CreateSessionOptions(&options_));
    check(api_->SetIntraOpNumThreads(options_, threads > 0 ? threads : cores));
    check(api_->SetInterOpNumThreads(options_, 1));
    check(api_->SetSessionLogSeverityLevel(options_, 3));
    check(api_->AddSessionConfigEntry(options_, "session.force_spinning_stop", "1"));
    check(api_->AddSessionConfigEntry(options_, "optimization.disable_specified_optimizers", "WeightBiasQuantization"));
    if (saturates()) check(api_->AddSessionConfigEntry(options_, "session.x64quantprecision", "1"));
    check(api_->CreateSessionFromArray(env_, model.data(), model.size(), options_, &session_));
  }

  void describe() {
    size_t inputs = 0, outputs = 0;
    check(api_->SessionGetInputCount(session_, &inputs));
    check(api_->SessionGetOutputCount(session_, &outputs));
    OrtAllocator *allocator = nullptr;
    check(api_->GetAllocatorWithDefaultOptions(&allocator));
    for (size_t i = 0; i < inputs + outputs; i++) {
      char *name = nullptr;
      OrtTypeInfo *type = nullptr;
      const bool in = i < inputs;
      check(in ? api_->SessionGetInputName(session_, i, allocator, &name)
               : api_->SessionGetOutputName(session_, i - inputs, allocator, &name));
      Slot slot;
      {
        const auto held = owned(name, [&](char *text) { forget(api_->AllocatorFree(allocator, text)); });
        slot.name = name;
      }
      check(in ? api_->SessionGetInputTypeInfo(session_, i, &type)
               : api_->SessionGetOutputTypeInfo(session_, i - inputs, &type));
      const auto held = owned(type, [&](OrtTypeInfo *info) { api_->ReleaseTypeInfo(info); });
      describe(type, slot);
      (in ? inputs_ : outputs_).push_back(std::move(slot));
    }
    for (const Slot &slot : inputs_) names_.push_back(slot.name.c_str());
    for (const Slot &slot : outputs_) names_.push_back(slot.name.c_str());
    values_.assign(names_.size(), nullptr);
    filled_.resize(inputs);
  }

  void describe(const OrtTypeInfo *type, Slot &slot) {
    const OrtTensorTypeAndShapeInfo *info = nullptr;
    ONNXTensorElementDataType kind = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t axes = 0;
    check(api_->CastTypeInfoToTensorInfo(type, &info));
    if (info == nullptr) fail(ETL_RUNTIME, "the model gives or takes something that is no tensor");
    check(api_->GetTensorElementType(info, &kind));
    check(api_->GetDimensionsCount(info, &axes));
    slot.type = name_of(kind);
    slot.shape.resize(axes);
    check(api_->GetDimensions(info, slot.shape.data(), axes));
  }

  OrtValue *value_of(size_t index, const void *sample) {
    const Slot &slot = inputs_[index];
    const size_t bytes = sample_bytes(slot);
    std::vector<int64_t> &shape = shape_;
    shape = slot.shape;
    const int64_t batch = shape.empty() || shape[0] < 1 ? 1 : shape[0];
    if (!shape.empty()) shape[0] = batch;
    const void *data = sample;
    if (batch > 1) {
      std::vector<char> &copies = filled_[index];
      copies.resize(bytes * static_cast<size_t>(batch));
      for (int64_t i = 0; i < batch; i++) std::memcpy(copies.data() + bytes * static_cast<size_t>(i), sample, bytes);
      data = copies.data();
    }
    OrtValue *value = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_, const_cast<void *>(data), bytes * static_cast<size_t>(batch),
                                               shape.data(), shape.size(), kind_of(slot.type), &value));
    return value;
  }

  // The first sample of an output.
  void read(OrtValue *value, const std::string &name, Output &found) {
    OrtTensorTypeAndShapeInfo *info = nullptr;
    ONNXTensorElementDataType kind = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t axes = 0, count = 0;
    check(api_->GetTensorTypeAndShape(value, &info));
    const auto held = owned(info, [&](OrtTensorTypeAndShapeInfo *told) { api_->ReleaseTensorTypeAndShapeInfo(told); });
    check(api_->GetTensorElementType(info, &kind));
    check(api_->GetDimensionsCount(info, &axes));
    found.shape.resize(axes);
    check(api_->GetDimensions(info, found.shape.data(), axes));
    check(api_->GetTensorShapeElementCount(info, &count));
    void *data = nullptr;
    check(api_->GetTensorMutableData(value, &data));
    if (axes == 0 || count == 0) fail(ETL_RUNTIME, "the output '" + name + "' holds no sample");
    count /= static_cast<size_t>(found.shape[0]);
    found.shape[0] = 1;
    found.values.resize(count);
    if (kind == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      std::memcpy(found.values.data(), data, count * sizeof(float));
    else if (kind == ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE)
      std::copy_n(static_cast<const double *>(data), count, found.values.begin());
    else
      fail(ETL_UNSUPPORTED, "the output '" + name + "' is of " + name_of(kind) + ": export it as float");
  }

  void forget() {
    for (OrtValue *&value : values_) {
      if (value != nullptr) api_->ReleaseValue(value);
      value = nullptr;
    }
  }

  void release() {
    forget();
    if (memory_ != nullptr) api_->ReleaseMemoryInfo(memory_);
    if (session_ != nullptr) api_->ReleaseSession(session_);
    if (options_ != nullptr) api_->ReleaseSessionOptions(options_);
    if (env_ != nullptr) api_->ReleaseEnv(env_);
  }

  std::string path_;
  const OrtApi *api_ = nullptr;
  OrtEnv *env_ = nullptr;
  OrtSessionOptions *options_ = nullptr;
  OrtSession *session_ = nullptr;
  OrtMemoryInfo *memory_ = nullptr;
  std::vector<const char *> names_;        // inputs, then outputs
  std::vector<OrtValue *> values_;         // of the run that goes on, in the same order
  std::vector<std::vector<char>> filled_;  // copies of a sample for a fixed batch
  std::vector<int64_t> shape_;
};

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(Artifact artifact, const std::string &library, int threads) {
  return std::make_unique<OnnxRuntime>(artifact, library, threads);
}

}  // namespace etl

#else

namespace etl {
std::unique_ptr<Backend> open_onnxruntime(Artifact, const std::string &, int) {
  fail(ETL_UNSUPPORTED, "this runner was built without ONNX Runtime, whose header was not found");
}
}  // namespace etl

#endif
