// What a network's outputs mean, as the bundle's tasks say: edgetl/tasks in C++.
#pragma once

#include <vector>

#include "backends/backend.hpp"
#include "edgetl.h"

namespace etl {

class Answers {
 public:
  // Which output is which task's. Throws Failure where one is missing.
  Answers(const std::vector<Task> &tasks, const std::vector<Slot> &outputs);

  // The answers to one sample, in the caller's order and memory. Throws Failure.
  const std::vector<etl_answer> &of(const std::vector<Output> &outputs, size_t top);

 private:
  void labels(int32_t index, const Task &task, const std::vector<float> &logits, size_t top);

  const std::vector<Task> &tasks_;
  std::vector<size_t> places_;
  std::vector<etl_answer> found_;
  std::vector<double> shares_;
  std::vector<int32_t> order_;
};

}  // namespace etl
