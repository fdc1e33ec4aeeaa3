// Arrays, pixels and structures of a caller, golden vectors, and whatever numbers a network gives, NaN and infinite ones
// among them; the network is made up.
#include <limits>

// For the handle, which only etl_open makes, and that needs a runtime.
#include "../src/edgetl.cpp"
#include "input.hpp"

namespace etl {
namespace {

std::map<std::string, Array> golden;

class MadeUp final : public Backend {
 public:
  explicit MadeUp(Input &input) {
    static const char *const types[] = {"uint8", "float32", "int64", "float16", "type 9"};
    for (int64_t i = input.between(0, 2); i >= 0; i--) {
      Slot slot{std::string(1, static_cast<char>('a' + i)), types[input.byte() % 5], {1}};
      for (int64_t axes = input.between(0, 2); axes > 0; axes--) slot.shape.push_back(input.between(-1, 8));
      inputs_.push_back(slot);
    }
    for (int64_t i = input.between(1, 3); i > 0; i--) {
      outputs_.push_back({"t" + std::to_string(i), "float32", {1, -1}});
      std::vector<float> values(static_cast<size_t>(input.between(0, 6)));
      for (float &value : values) value = input.number<float>();
      given_.push_back({{1, static_cast<int64_t>(values.size())}, values});
    }
  }

  void run(const std::vector<const void *> &sample, std::vector<Output> &found) override {
    // Each byte of each array is read, as a network does.
    for (size_t i = 0; i < inputs_.size(); i++)
      for (size_t k = 0; k < sample_bytes(inputs_[i]); k++) sum_ += static_cast<const uint8_t *>(sample[i])[k];
    found = given_;
  }

 private:
  std::vector<Output> given_;
  volatile unsigned sum_ = 0;
};

Array array_of(Input &input) {
  static const char *const types[] = {"|u1", "<f4", "<i8", "<f2"};
  Array array{types[input.byte() % 4], {input.between(0, 3)}, {}};
  array.bytes = input.text(static_cast<size_t>(input.between(0, 96)));
  return array;
}

std::unique_ptr<etl_model> model_of(Input &input) {
  auto model = std::make_unique<etl_model>();
  model->backend = std::make_unique<MadeUp>(input);
  for (const Slot &slot : model->backend->outputs()) {
    Task task{slot.name, static_cast<Answer>(input.byte() % 3), slot.name, {}};
    for (int64_t i = input.between(0, 6); i > 0; i--) task.labels.push_back("label " + std::to_string(i));
    model->bundle.tasks.push_back(task);
  }
  if (input.byte() % 2 != 0) {
    model->bundle.picture = etl_definition{4, 5, 6, ETL_SHORTER, ETL_BICUBIC, ETL_RGB, {0, 0, 0}};
    model->input.resize(input_bytes(*model->bundle.picture));
  }
  model->answers = std::make_unique<Answers>(model->bundle.tasks, model->backend->outputs());
  model->max_bytes = model->decoding.max_pixels = 1 << 16;
  return model;
}

void ask(etl_model &model, Input &input) {
  std::vector<etl_answer> items(static_cast<size_t>(input.between(0, 12)));
  etl_answers answers{sizeof answers, input.byte(), items.data(), items.size(), 0};
  if (input.byte() % 8 == 0) answers.size = input.byte() % sizeof answers;
  if (input.byte() % 2 != 0) {
    const auto width = static_cast<int32_t>(input.between(0, 40)), height = static_cast<int32_t>(input.between(0, 40));
    const auto stride = static_cast<size_t>(input.between(0, 200));
    const std::vector<uint8_t> pixels(stride * static_cast<size_t>(height) + 1);
    // The network's input is this picture then, of whatever size it says.
    if (model.bundle.picture && model.backend->inputs().size() == 1 &&
        sample_bytes(model.backend->inputs()[0]) <= model.input.size())
      (void)etl_run_rgb(&model, pixels.data(), width, height, stride, &answers);
  } else {
    std::vector<std::string> names, arrays;
    std::vector<etl_tensor> tensors;
    for (int64_t i = input.between(0, 3); i > 0; i--) {
      names.push_back(input.text(1));
      arrays.push_back(std::string(static_cast<size_t>(input.between(0, 600)), '\1'));
    }
    for (size_t i = 0; i < names.size(); i++)
      tensors.push_back({names[i] == "0" ? nullptr : names[i].c_str(), arrays[i].data(), arrays[i].size()});
    (void)etl_run_tensor(&model, tensors.data(), tensors.size(), &answers);
  }
  size_t count = 0;
  std::vector<float> values(static_cast<size_t>(input.between(0, 8)));
  (void)etl_outputs(&model, input.byte() - 1, values.data(), values.size(), &count);
}

}  // namespace

// What the handle's functions need besides, as nobody has it here.
Bundle open_bundle(const std::string &, const std::string &, const uint8_t *) { fail(ETL_BUNDLE, "none"); }
void read_file(const char *, uint64_t, etl_status status, std::string &) { fail(status, "none"); }
std::map<std::string, Array> read_golden(const Bundle &) { return golden; }
std::unique_ptr<Backend> open_onnxruntime(Artifact, const std::string &, int) { fail(ETL_RUNTIME, "none"); }
std::unique_ptr<Backend> open_openvino(Artifact, const std::string &, int) { fail(ETL_RUNTIME, "none"); }
std::unique_ptr<Backend> open_litert(Artifact, const std::string &, int) { fail(ETL_RUNTIME, "none"); }
std::unique_ptr<Backend> open_tensorrt(Artifact, const std::string &, int) { fail(ETL_RUNTIME, "none"); }

}  // namespace etl

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  Input input(data, bytes);
  const auto model = etl::model_of(input);
  etl::golden.clear();
  for (const etl::Slot &slot : model->backend->inputs()) etl::golden["in." + slot.name] = etl::array_of(input);
  for (const etl::Slot &slot : model->backend->outputs()) etl::golden["out." + slot.name] = etl::array_of(input);
  etl_check check{};
  check.size = sizeof check;
  (void)etl_self_test(model.get(), &check);
  for (int runs = 0; runs < 3; runs++) ask(*model, input);
  return 0;
}
