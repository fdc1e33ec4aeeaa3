// What the runner adds to its runtime: one sample through etl_run_tensor, and through ONNX Runtime's own C functions with
// the same settings, in turn, in one process.
//
//   c_overhead RUNTIME BUNDLE MODEL.onnx ROUNDS [exact]
//
// "exact": on a CPU whose products of 8 bits saturate, where the runner sets session.x64quantprecision.
//
// Prints the medians, milliseconds: of the runner, of the runtime alone.
#include <dlfcn.h>
#include <edgetl.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

const OrtApi *ort = nullptr;

void check(OrtStatus *status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
  std::exit(1);
}

// Input and output of the one that is timed against: names as the model has them.
struct Alone {
  OrtEnv *env = nullptr;
  OrtSessionOptions *options = nullptr;
  OrtSession *session = nullptr;
  OrtMemoryInfo *memory = nullptr;
  char *input = nullptr, *output = nullptr;

  Alone(const char *library, const char *model, bool exact) {
    using Base = const OrtApiBase *(*)();
    void *symbol = dlsym(dlopen(library, RTLD_NOW | RTLD_LOCAL), "OrtGetApiBase");
    Base base = nullptr;
    std::memcpy(&base, &symbol, sizeof base);
    ort = base()->GetApi(ORT_API_VERSION);
    OrtAllocator *allocator = nullptr;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "alone", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1));
    check(ort->SetInterOpNumThreads(options, 1));
    check(ort->AddSessionConfigEntry(options, "session.force_spinning_stop", "1"));
    check(ort->AddSessionConfigEntry(options, "optimization.disable_specified_optimizers", "WeightBiasQuantization"));
    if (exact) check(ort->AddSessionConfigEntry(options, "session.x64quantprecision", "1"));
    check(ort->CreateSession(env, model, options, &session));
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    check(ort->SessionGetInputName(session, 0, allocator, &input));
    check(ort->SessionGetOutputName(session, 0, allocator, &output));
  }

  void run(std::vector<uint8_t> &sample, const etl_info &info) {
    const int64_t shape[4] = {1, info.height, info.width, info.channels};
    OrtValue *given = nullptr, *made = nullptr;
    check(ort->CreateTensorWithDataAsOrtValue(memory, sample.data(), sample.size(), shape, 4,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &given));
    check(ort->Run(session, nullptr, &input, &given, 1, &output, 1, &made));
    ort->ReleaseValue(made);
    ort->ReleaseValue(given);
  }
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int count, char **words) {
  if (count < 5) return 2;
  etl_options options{};
  options.size = sizeof options;
  options.threads = 1;
  options.runtime_library = words[1];
  etl_model *model = nullptr;
  if (etl_open(words[2], &options, &model) != ETL_OK) {
    std::fprintf(stderr, "%s\n", etl_error(nullptr));
    return 1;
  }
  etl_info info{};
  info.size = sizeof info;
  (void)etl_describe(model, &info);
  std::vector<uint8_t> sample(static_cast<size_t>(info.height) * static_cast<size_t>(info.width * info.channels));
  for (size_t i = 0; i < sample.size(); i++) sample[i] = static_cast<uint8_t>(i * 31 + i / 97);
  std::vector<etl_answer> items(static_cast<size_t>(info.labels + info.tasks));
  const etl_tensor tensor{nullptr, sample.data(), sample.size()};
  Alone alone(words[1], words[3], count > 5);
  std::vector<double> ours, theirs;
  const auto timed = [&](bool through_runner) {
    const auto begin = Clock::now();
    etl_answers answers{sizeof answers, 0, items.data(), items.size(), 0};
    if (!through_runner) alone.run(sample, info);
    else if (etl_run_tensor(model, &tensor, 1, &answers) != ETL_OK) std::exit(1);
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  };
  for (int round = 0; round < std::atoi(words[4]) + 20; round++) {
    // Each is first as often as the other.
    const bool first = round % 2 == 0;
    const double one = timed(first), other = timed(!first);
    if (round < 20) continue;
    ours.push_back(first ? one : other);
    theirs.push_back(first ? other : one);
  }
  std::printf("%.6f %.6f\n", median(ours), median(theirs));
  etl_close(model);
  return 0;
}
