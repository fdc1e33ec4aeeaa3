// The C functions: each is a short piece of C++ from which no exception leaves.
#include "edgetl.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>

#include "answers.hpp"
#include "backends/backend.hpp"

namespace etl {

void *open_library(const std::string &path, const std::vector<std::string> &names, const std::string &what) {
  std::string why;
  for (const std::string &name : path.empty() ? names : std::vector<std::string>{path}) {
    if (void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    if (const char *text = dlerror(); text != nullptr && why.empty()) why = text;
  }
  fail(ETL_RUNTIME, what + " cannot be opened (" + why + "): name its shared library in options.runtime_library");
}

std::unique_ptr<Backend> open_backend(Artifact artifact, const std::string &library, int threads) {
  if (artifact.backend == "onnxruntime") return open_onnxruntime(std::move(artifact), library, threads);
  if (artifact.backend == "openvino") return open_openvino(std::move(artifact), library, threads);
  if (artifact.backend == "litert") return open_litert(std::move(artifact), library, threads);
  if (artifact.backend == "tensorrt") return open_tensorrt(std::move(artifact), library, threads);
  fail(ETL_UNSUPPORTED, "artifacts for " + artifact.backend.substr(0, 100) + " are not run by this runner");
}

namespace {

// As edgetl/runtime/selftest.py.
constexpr double golden_tolerance = 0.05, input_tolerance = 0.006;
constexpr size_t usual_top = 5, largest_structure = 4096;
constexpr int64_t most_samples = 1 << 20;
thread_local std::string open_error;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Copy of a caller's structure, with zeros where it is shorter than this library's.
template <class T>
T taken(const T *given) {
  T whole{};
  if (given == nullptr) return whole;
  if (given->size < sizeof given->size || given->size > largest_structure)
    fail(ETL_USAGE, "a structure's size is not set: set it to sizeof");
  std::memcpy(&whole, given, std::min(given->size, sizeof(T)));
  return whole;
}

// What a later header added and this library does not know must not be asked for: it would be left undone in silence.
void refuse_unknown(const etl_options *given) {
  if (given == nullptr) return;
  const auto *bytes = reinterpret_cast<const unsigned char *>(given);
  const bool more = given->size > sizeof *given &&
                    std::any_of(bytes + sizeof *given, bytes + given->size, [](unsigned char byte) { return byte != 0; });
  const bool flags = given->size >= offsetof(etl_options, threads) && (given->flags & ~uint32_t{ETL_NO_RUNTIME}) != 0;
  if (more || flags) fail(ETL_USAGE, "the options ask for what this library does not know: take the one of that header");
}

template <class T>
void give(T *to, T value) {
  if (to == nullptr || to->size < sizeof to->size) fail(ETL_USAGE, "a structure is missing, or its size is not set");
  value.size = to->size;
  std::memcpy(to, &value, std::min(to->size, sizeof(T)));
}

}  // namespace
}  // namespace etl

using namespace etl;

struct etl_model {
  Bundle bundle;
  etl_decoding decoding{};
  uint64_t max_bytes = 0;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Answers> answers;
  std::vector<const void *> sample;
  std::vector<Output> outputs;
  bool answered = false;  // the outputs are those of the last run
  etl_picture picture{};
  etl_resizer resizer{};
  std::vector<uint8_t> input;
  std::string file;  // content of the last picture's
  etl_timing timing{};
  std::string error;

  etl_model() = default;
  etl_model(const etl_model &) = delete;
  etl_model &operator=(const etl_model &) = delete;
  ~etl_model() {
    etl_buffer_free(&picture.pixels);
    etl_buffer_free(&picture.spare);
    etl_resizer_free(&resizer);
  }
};

namespace {

template <class F>
etl_status guarded(std::string &error, F &&body) noexcept {
  try {
    try {
      body();
      return ETL_OK;
    } catch (const Failure &failure) {
      error = failure.text;
      return failure.status;
    } catch (const std::bad_alloc &) {
      error = "there is no memory left";
      return ETL_MEMORY;
    } catch (const std::exception &problem) {
      error = problem.what();
      return ETL_RUNTIME;
    }
  } catch (...) {
    return ETL_MEMORY;
  }
}

template <class F>
etl_status guarded(const etl_model *model, F &&body) noexcept {
  if (model == nullptr) return ETL_USAGE;
  return guarded(const_cast<etl_model *>(model)->error, body);
}

void check(const etl_failure &failure, etl_status status) {
  if (status != ETL_OK) fail(status, failure.text);
}

const etl_definition &definition(const etl_model &m) {
  if (!m.bundle.picture) fail(ETL_USAGE, "this bundle takes arrays and no pictures: use etl_run_tensor");
  return *m.bundle.picture;
}

size_t input_bytes(const etl_definition &d) {
  return static_cast<size_t>(d.height) * static_cast<size_t>(d.width) * (d.order == ETL_GREY ? 1 : 3);
}

void prepare(etl_model &m, const uint8_t *rgb, int32_t width, int32_t height, size_t stride, uint8_t *out) {
  const auto start = Clock::now();
  etl_failure failure{};
  check(failure, etl_prepare(&definition(m), rgb, width, height, stride, &m.resizer, out, &failure));
  m.timing.resize_ms = since(start);
}

void preprocess(etl_model &m, const void *data, size_t bytes, uint8_t *out) {
  (void)definition(m);
  if (data == nullptr) fail(ETL_USAGE, "there is no picture");
  if (bytes > m.max_bytes) fail(ETL_INPUT, "the picture has " + std::to_string(bytes) + " bytes: shrink it");
  const auto start = Clock::now();
  etl_failure failure{};
  check(failure, etl_decode(static_cast<const uint8_t *>(data), bytes, &m.decoding, &m.picture, &failure));
  m.timing.decode_ms = since(start);
  prepare(m, m.picture.pixels.data, m.picture.width, m.picture.height, static_cast<size_t>(m.picture.width) * 3, out);
}

// Run what m.sample points to.
void infer(etl_model &m) {
  const auto start = Clock::now();
  m.backend->run(m.sample, m.outputs);
  m.timing.run_ms = since(start);
  m.answered = true;
}

Backend &backend(etl_model &m) {
  if (!m.backend) fail(ETL_USAGE, "the bundle was opened without a runtime");
  return *m.backend;
}

// What follows is a new run: whatever becomes of it, nothing of the one before is taken for its answer.
void begin(etl_model &m, etl_answers *answers) {
  m.answered = false;
  if (answers != nullptr && answers->size >= offsetof(etl_answers, count) + sizeof answers->count) answers->count = 0;
  (void)backend(m);
}

void answer(etl_model &m, etl_answers *answers) {
  if (answers == nullptr) return;
  etl_answers wanted = taken(answers);
  const auto &found = m.answers->of(m.outputs, wanted.top != 0 ? wanted.top : usual_top);
  wanted.count = found.size();
  if (wanted.items != nullptr)
    std::copy_n(found.begin(), std::min(wanted.capacity, found.size()), wanted.items);
  give(answers, wanted);
  if (wanted.items == nullptr || found.size() > wanted.capacity)
    fail(ETL_USAGE, "there are " + std::to_string(found.size()) + " answers, more than the array holds");
}

void run_picture(etl_model &m, etl_answers *answers) {
  m.sample.assign(1, m.input.data());
  infer(m);
  answer(m, answers);
}

void check_input(const etl_model &m) {
  const auto &inputs = m.backend->inputs();
  if (!m.bundle.picture) {
    for (const Slot &slot : inputs)
      if (sample_bytes(slot) == 0) fail(ETL_UNSUPPORTED, "the input '" + slot.name + "' has no fixed shape");
    return;
  }
  const etl_definition &d = *m.bundle.picture;
  const std::vector<int64_t> wanted{d.height, d.width, d.order == ETL_GREY ? 1 : 3};
  const bool fits = inputs.size() == 1 && inputs[0].type == "uint8" && inputs[0].shape.size() == 4 &&
                    std::equal(wanted.begin(), wanted.end(), inputs[0].shape.begin() + 1);
  if (!fits) fail(ETL_BUNDLE, "the model does not take the picture that preprocess.json makes: export it again");
}

void open_model(const char *folder, const etl_options &options, etl_model &m) {
  m.bundle = open_bundle(folder, options.role != nullptr ? options.role : "deployed", options.public_key);
  m.decoding.max_pixels = options.max_pixels != 0 ? options.max_pixels : uint64_t{1} << 27;
  m.decoding.by_content = m.bundle.by_content ? 1 : 0;
  m.max_bytes = options.max_bytes != 0 ? options.max_bytes : uint64_t{1} << 28;
  m.decoding.max_pixels = std::min(m.decoding.max_pixels, uint64_t{1} << 30);
  if (m.bundle.picture) m.input.resize(input_bytes(*m.bundle.picture));
  Artifact artifact = std::move(m.bundle.artifact);
  m.bundle.artifact = {artifact.backend, artifact.file, artifact.precision, artifact.device, "", ""};
  if ((options.flags & ETL_NO_RUNTIME) != 0) return;
  const char *library = options.runtime_library != nullptr ? options.runtime_library : "";
  m.backend = open_backend(std::move(artifact), library, options.threads);
  m.answers = std::make_unique<Answers>(m.bundle.tasks, m.backend->outputs());
  check_input(m);
}

void take_tensors(etl_model &m, const etl_tensor *inputs, size_t count) {
  const auto &slots = backend(m).inputs();
  if (inputs == nullptr || count != slots.size())
    fail(ETL_USAGE, "the network takes " + std::to_string(slots.size()) + " inputs, not " + std::to_string(count));
  m.sample.assign(slots.size(), nullptr);
  for (size_t i = 0; i < count; i++) {
    const auto slot = std::find_if(slots.begin(), slots.end(), [&](const Slot &known) {
      return inputs[i].name == nullptr ? count == 1 : known.name == inputs[i].name;
    });
    if (slot == slots.end()) fail(ETL_USAGE, "the network has no such input: the first is '" + slots[0].name + "'");
    if (inputs[i].data == nullptr || inputs[i].bytes == 0 || inputs[i].bytes != sample_bytes(*slot))
      fail(ETL_USAGE, "a sample of '" + slot->name + "' has " + std::to_string(sample_bytes(*slot)) + " bytes of " +
                          slot->type + ", not " + std::to_string(inputs[i].bytes));
    if (reinterpret_cast<uintptr_t>(inputs[i].data) % type_bytes(slot->type) != 0)
      fail(ETL_USAGE, "the numbers of '" + slot->name + "' do not lie at a multiple of their size, as " + slot->type + " must");
    m.sample[static_cast<size_t>(slot - slots.begin())] = inputs[i].data;
  }
  if (std::count(m.sample.begin(), m.sample.end(), nullptr) != 0) fail(ETL_USAGE, "an input is given twice");
}

// --- self-test ---

struct Range {
  double low = INFINITY, high = -INFINITY, apart = 0;
  bool numbers = true;
};

void compare(const float *expected, const float *found, size_t count, Range &range) {
  for (size_t i = 0; i < count; i++) {
    range.low = std::min(range.low, static_cast<double>(expected[i]));
    range.high = std::max(range.high, static_cast<double>(expected[i]));
    const double apart = std::fabs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
    range.apart = std::max(range.apart, apart);
    range.numbers = range.numbers && std::isfinite(apart);
  }
}

const Array &golden_array(const std::map<std::string, Array> &golden, const std::string &name, const std::string &type) {
  const auto found = golden.find(name);
  if (found == golden.end() || found->second.shape.empty() || found->second.type.substr(1) != type)
    fail(ETL_BUNDLE, "golden.npz has no '" + name + "' that this runner reads: export the bundle again");
  return found->second;
}

std::string short_type(const std::string &name) {
  const std::string letter = name == "uint8" ? "u" : name.substr(0, 1) == "f" ? "f" : "i";
  return letter + std::to_string(type_bytes(name));
}

// The class of a sample, or -1 where the tolerance could turn it: of one-class tasks with several classes.
int32_t clear_class(const float *logits, size_t count, double span) {
  size_t best = 0;
  float second = -INFINITY;
  for (size_t i = 1; i < count; i++) {
    if (logits[i] > logits[best]) {
      second = logits[best];
      best = i;
    } else {
      second = std::max(second, logits[i]);
    }
  }
  return static_cast<double>(logits[best]) - static_cast<double>(second) > golden_tolerance * span
             ? static_cast<int32_t>(best)
             : -1;
}

// Share of the clear samples that get the same answer: the class, or all labels; -1 where there is none to compare.
double agreement(const Task &task, const float *expected, const std::vector<float> &found, size_t width, double span) {
  const size_t samples = found.size() / width;
  int clear = 0, equal = 0;
  for (size_t row = 0; row < samples; row++) {
    const float *before = expected + row * width, *after = found.data() + row * width;
    if (task.answer == Answer::one_class) {
      const int32_t wanted = clear_class(before, width, span);
      if (wanted < 0) continue;
      clear++;
      equal += wanted == static_cast<int32_t>(std::max_element(after, after + width) - after);
    } else {
      const bool sure = std::all_of(before, before + width, [&](float x) { return std::fabs(x) > golden_tolerance * span; });
      clear += sure;
      equal += sure && std::equal(before, before + width, after, [](float a, float b) { return (a >= 0) == (b >= 0); });
    }
  }
  return clear != 0 ? static_cast<double>(equal) / clear : -1;
}

void test_probe(etl_model &m, const std::map<std::string, Array> &golden, etl_check &result) {
  result.input_difference = -1;
  const auto file = golden.find("probe");
  if (!m.bundle.picture || file == golden.end()) return;
  const Array &expected = golden_array(golden, "probe.image", "u1");
  preprocess(m, file->second.bytes.data(), file->second.bytes.size(), m.input.data());
  if (expected.bytes.size() != m.input.size()) fail(ETL_SELF_TEST, "a file becomes another input here");
  double sum = 0;
  for (size_t i = 0; i < m.input.size(); i++) sum += std::abs(m.input[i] - static_cast<uint8_t>(expected.bytes[i]));
  result.input_difference = sum / (255.0 * static_cast<double>(m.input.size()));
}

// Every output for every golden sample, one after the other.
std::vector<std::vector<float>> golden_outputs(etl_model &m, const std::map<std::string, Array> &golden,
                                               int32_t &samples) {
  const auto &slots = backend(m).inputs();
  std::vector<const Array *> fed;
  for (const Slot &slot : slots) fed.push_back(&golden_array(golden, "in." + slot.name, short_type(slot.type)));
  const int64_t count = fed.empty() ? 0 : fed[0]->shape[0];
  if (count < 1 || count > most_samples) fail(ETL_BUNDLE, "golden.npz holds no samples: export the bundle again");
  std::vector<std::vector<float>> found(m.backend->outputs().size());
  m.sample.resize(slots.size());
  for (int64_t row = 0; row < count; row++) {
    for (size_t i = 0; i < slots.size(); i++) {
      const size_t bytes = sample_bytes(slots[i]);
      if (bytes == 0 || fed[i]->bytes.size() / bytes != static_cast<size_t>(count) || fed[i]->bytes.size() % bytes != 0)
        fail(ETL_BUNDLE, "golden.npz is of another network");
      m.sample[i] = fed[i]->bytes.data() + bytes * static_cast<size_t>(row);
    }
    infer(m);
    for (size_t i = 0; i < found.size(); i++)
      found[i].insert(found[i].end(), m.outputs[i].values.begin(), m.outputs[i].values.end());
  }
  samples = static_cast<int32_t>(count);
  return found;
}

void test_outputs(etl_model &m, const std::map<std::string, Array> &golden, etl_check &result) {
  const auto found = golden_outputs(m, golden, result.samples);
  const auto &slots = m.backend->outputs();
  result.agreement = -1;
  for (size_t i = 0; i < slots.size(); i++) {
    const Array &array = golden_array(golden, "out." + slots[i].name, "f4");
    std::vector<float> expected(array.bytes.size() / sizeof(float));
    if (expected.empty() || expected.size() != found[i].size()) fail(ETL_BUNDLE, "golden.npz is of another network");
    std::memcpy(expected.data(), array.bytes.data(), expected.size() * sizeof(float));
    Range range;
    compare(expected.data(), found[i].data(), expected.size(), range);
    if (!range.numbers) fail(ETL_SELF_TEST, "the answers to the golden samples are no numbers");
    const double span = range.high > range.low ? range.high - range.low : 1.0;
    result.max_difference = std::max(result.max_difference, range.apart / span);
    const bool first = slots[i].name == m.bundle.tasks[0].output && m.bundle.tasks.size() == 1;
    const size_t width = expected.size() / static_cast<size_t>(std::max(result.samples, 1));
    if (first && m.bundle.tasks[0].answer != Answer::value && width > 1)
      result.agreement = agreement(m.bundle.tasks[0], expected.data(), found[i], width, span);
  }
}

}  // namespace

extern "C" {

int32_t etl_version(void) { return ETL_API_VERSION; }

etl_status etl_open(const char *bundle, const etl_options *options, etl_model **model) {
  if (model == nullptr) return ETL_USAGE;
  *model = nullptr;
  return guarded(open_error, [&] {
    if (bundle == nullptr) fail(ETL_USAGE, "there is no name of a bundle");
    auto opened = std::make_unique<etl_model>();
    const etl_options known = taken(options);
    refuse_unknown(options);
    open_model(bundle, known, *opened);
    *model = opened.release();
  });
}

void etl_close(etl_model *model) { delete model; }

const char *etl_error(const etl_model *model) { return model != nullptr ? model->error.c_str() : open_error.c_str(); }

etl_status etl_self_test(etl_model *model, etl_check *check) {
  return guarded(model, [&] {
    begin(*model, nullptr);
    etl_check result{};
    const auto golden = read_golden(model->bundle);
    test_probe(*model, golden, result);
    test_outputs(*model, golden, result);
    model->answered = false;
    if (check != nullptr) give(check, result);
    if (result.max_difference > golden_tolerance)
      fail(ETL_SELF_TEST, "the golden outputs differ by " + std::to_string(result.max_difference) + " of their range");
    if (result.agreement >= 0 && result.agreement < 1)
      fail(ETL_SELF_TEST, "only " + std::to_string(result.agreement) + " of the clear golden answers are as expected");
    if (result.input_difference > input_tolerance)
      fail(ETL_SELF_TEST, "a file becomes another input here: off by " + std::to_string(result.input_difference));
  });
}

etl_status etl_run_file(etl_model *model, const char *path, etl_answers *answers) {
  return guarded(model, [&] {
    begin(*model, answers);
    if (path == nullptr) fail(ETL_USAGE, "there is no name of a picture");
    read_file(path, model->max_bytes, ETL_INPUT, model->file);
    preprocess(*model, model->file.data(), model->file.size(), model->input.data());
    run_picture(*model, answers);
  });
}

etl_status etl_run_encoded(etl_model *model, const void *jpeg_or_png, size_t bytes, etl_answers *answers) {
  return guarded(model, [&] {
    begin(*model, answers);
    preprocess(*model, jpeg_or_png, bytes, model->input.data());
    run_picture(*model, answers);
  });
}

etl_status etl_run_rgb(etl_model *model, const uint8_t *rgb, int32_t width, int32_t height, size_t stride,
                       etl_answers *answers) {
  return guarded(model, [&] {
    begin(*model, answers);
    if (rgb == nullptr || width < 1 || height < 1 || stride < static_cast<size_t>(width) * 3)
      fail(ETL_USAGE, "no such picture: give its pixels, width, height, and bytes from row to row");
    if (stride > static_cast<size_t>(PTRDIFF_MAX) / static_cast<size_t>(height))
      fail(ETL_USAGE, "no memory holds such a picture: a row has " + std::to_string(stride) + " bytes");
    model->timing.decode_ms = 0;
    prepare(*model, rgb, width, height, stride, model->input.data());
    run_picture(*model, answers);
  });
}

etl_status etl_run_tensor(etl_model *model, const etl_tensor *inputs, size_t count, etl_answers *answers) {
  return guarded(model, [&] {
    begin(*model, answers);
    take_tensors(*model, inputs, count);
    model->timing.decode_ms = model->timing.resize_ms = 0;
    infer(*model);
    answer(*model, answers);
  });
}

etl_status etl_preprocess(etl_model *model, const void *jpeg_or_png, size_t bytes, uint8_t *input, size_t capacity) {
  return guarded(model, [&] {
    const size_t wanted = input_bytes(definition(*model));
    if (input == nullptr || capacity < wanted)
      fail(ETL_USAGE, "the network's picture takes " + std::to_string(wanted) + " bytes");
    preprocess(*model, jpeg_or_png, bytes, input);
  });
}

etl_status etl_outputs(etl_model *model, int32_t index, float *values, size_t capacity, size_t *count) {
  return guarded(model, [&] {
    if (!model->answered || index < 0 || static_cast<size_t>(index) >= model->outputs.size())
      fail(ETL_USAGE, "there is no such output: the last run failed, or there was none");
    const std::vector<float> &found = model->outputs[static_cast<size_t>(index)].values;
    if (count != nullptr) *count = found.size();
    if (values == nullptr && count != nullptr) return;
    if (values == nullptr || capacity < found.size())
      fail(ETL_USAGE, "the output has " + std::to_string(found.size()) + " numbers");
    std::copy(found.begin(), found.end(), values);
  });
}

etl_status etl_describe(const etl_model *model, etl_info *info) {
  return guarded(model, [&] {
    etl_info found{};
    if (const auto &picture = model->bundle.picture) {
      found.height = picture->height;
      found.width = picture->width;
      found.channels = picture->order == ETL_GREY ? 1 : 3;
    }
    found.tasks = static_cast<int32_t>(model->bundle.tasks.size());
    for (const Task &task : model->bundle.tasks) found.labels += static_cast<int32_t>(task.labels.size());
    found.outputs = model->backend ? static_cast<int32_t>(model->backend->outputs().size()) : 0;
    found.target = model->bundle.target.c_str();
    found.task = model->bundle.task.c_str();
    found.precision = model->bundle.artifact.precision.c_str();
    found.digest = model->bundle.digest.c_str();
    give(info, found);
  });
}

const char *etl_task(const etl_model *model, int32_t index) {
  if (model == nullptr || index < 0 || static_cast<size_t>(index) >= model->bundle.tasks.size()) return nullptr;
  return model->bundle.tasks[static_cast<size_t>(index)].name.c_str();
}

const char *etl_label(const etl_model *model, int32_t task, int32_t index) {
  if (etl_task(model, task) == nullptr || index < 0) return nullptr;
  const auto &labels = model->bundle.tasks[static_cast<size_t>(task)].labels;
  return static_cast<size_t>(index) < labels.size() ? labels[static_cast<size_t>(index)].c_str() : nullptr;
}

const char *etl_output(const etl_model *model, int32_t index) {
  if (model == nullptr || !model->backend || index < 0) return nullptr;
  const auto &outputs = model->backend->outputs();
  return static_cast<size_t>(index) < outputs.size() ? outputs[static_cast<size_t>(index)].name.c_str() : nullptr;
}

void etl_last_timing(const etl_model *model, etl_timing *timing) {
  if (model != nullptr && timing != nullptr) (void)guarded(model, [&] { give(timing, model->timing); });
}

}  // extern "C"
