// edgetl.hpp: edgetl.h for C++17. A Model closes itself; what fails throws edgetl::Error.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "edgetl.h"

namespace edgetl {

class Error : public std::runtime_error {
 public:
  Error(etl_status status, const std::string &text) : std::runtime_error(text), status_(status) {}
  etl_status status() const noexcept { return status_; }

 private:
  etl_status status_;
};

class Model {
 public:
  explicit Model(const std::string &bundle, etl_options options = {}) {
    options.size = sizeof options;
    etl_model *opened = nullptr;
    if (const etl_status status = etl_open(bundle.c_str(), &options, &opened); status != ETL_OK)
      throw Error(status, etl_error(nullptr));
    model_.reset(opened);
    info_.size = sizeof info_;
    check(etl_describe(opened, &info_));
    answers_.resize(static_cast<std::size_t>(info_.labels) + static_cast<std::size_t>(info_.tasks));
  }

  // Each run's answers lie in the model's memory until the next one.
  const std::vector<etl_answer> &run_file(const std::string &path, std::uint32_t top = 0) {
    return run(top, [&](etl_answers *to) { return etl_run_file(get(), path.c_str(), to); });
  }
  const std::vector<etl_answer> &run_encoded(const void *jpeg_or_png, std::size_t bytes, std::uint32_t top = 0) {
    return run(top, [&](etl_answers *to) { return etl_run_encoded(get(), jpeg_or_png, bytes, to); });
  }
  const std::vector<etl_answer> &run_rgb(const std::uint8_t *rgb, std::int32_t width, std::int32_t height,
                                         std::size_t stride, std::uint32_t top = 0) {
    return run(top, [&](etl_answers *to) { return etl_run_rgb(get(), rgb, width, height, stride, to); });
  }
  const std::vector<etl_answer> &run_tensor(const std::vector<etl_tensor> &inputs, std::uint32_t top = 0) {
    return run(top, [&](etl_answers *to) { return etl_run_tensor(get(), inputs.data(), inputs.size(), to); });
  }

  std::vector<std::uint8_t> preprocess(const void *jpeg_or_png, std::size_t bytes) {
    const auto sides = static_cast<std::size_t>(info_.height) * static_cast<std::size_t>(info_.width);
    std::vector<std::uint8_t> input(sides * static_cast<std::size_t>(info_.channels));
    check(etl_preprocess(get(), jpeg_or_png, bytes, input.data(), input.size()));
    return input;
  }
  std::vector<float> outputs(std::int32_t index) {
    std::size_t count = 0;
    check(etl_outputs(get(), index, nullptr, 0, &count));
    std::vector<float> values(count);
    check(etl_outputs(get(), index, values.data(), count, &count));
    return values;
  }
  etl_check self_test() {
    etl_check result{};
    result.size = sizeof result;
    check(etl_self_test(get(), &result));
    return result;
  }
  etl_timing timing() const {
    etl_timing found{};
    found.size = sizeof found;
    etl_last_timing(get(), &found);
    return found;
  }
  const etl_info &info() const noexcept { return info_; }
  etl_model *get() const noexcept { return model_.get(); }

 private:
  struct Close {
    void operator()(etl_model *model) const noexcept { etl_close(model); }
  };

  void check(etl_status status) const {
    if (status != ETL_OK) throw Error(status, etl_error(get()));
  }

  template <class F>
  const std::vector<etl_answer> &run(std::uint32_t top, F &&ask) {
    answers_.resize(answers_.capacity());
    etl_answers found{sizeof found, top, answers_.data(), answers_.size(), 0};
    check(ask(&found));
    answers_.resize(found.count);
    return answers_;
  }

  std::unique_ptr<etl_model, Close> model_;
  etl_info info_{};
  std::vector<etl_answer> answers_;
};

}  // namespace edgetl
