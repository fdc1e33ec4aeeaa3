#include "answers.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace etl {
namespace {

// Logits beyond this are limited to it, so that an infinite one still gives finite figures.
double finite(double logit) { return std::isnan(logit) ? logit : std::min(std::max(logit, -1e9), 1e9); }

void softmax(const std::vector<float> &logits, std::vector<double> &shares) {
  double most = -1e9, total = 0;
  for (const float logit : logits) most = std::isnan(logit) ? logit : std::max(most, finite(logit));
  for (const float logit : logits) total += std::exp(finite(logit) - most);
  for (size_t i = 0; i < logits.size(); i++) shares[i] = std::exp(finite(logits[i]) - most - std::log(total));
}

void sigmoid(const std::vector<float> &logits, std::vector<double> &shares) {
  for (size_t i = 0; i < logits.size(); i++) {
    const double x = finite(logits[i]);
    shares[i] = x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
  }
}

}  // namespace

Answers::Answers(const std::vector<Task> &tasks, const std::vector<Slot> &outputs) : tasks_(tasks) {
  size_t most = 0;
  for (const Task &task : tasks) {
    const auto found = std::find_if(outputs.begin(), outputs.end(), [&](const Slot &slot) { return slot.name == task.output; });
    if (found == outputs.end()) fail(ETL_BUNDLE, "the network gives no '" + task.output + "': export the bundle again");
    places_.push_back(static_cast<size_t>(found - outputs.begin()));
    most = std::max(most, task.labels.size());
  }
  shares_.reserve(most);
  order_.reserve(most);
}

void Answers::labels(int32_t index, const Task &task, const std::vector<float> &logits, size_t top) {
  shares_.resize(logits.size());
  order_.resize(logits.size());
  if (task.answer == Answer::one_class) softmax(logits, shares_);
  else sigmoid(logits, shares_);
  std::iota(order_.begin(), order_.end(), 0);
  // Ties go to the lower index, and what is no number stands last, as numpy sorts; without memory of its own.
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    const float one = logits[static_cast<size_t>(a)], other = logits[static_cast<size_t>(b)];
    if (std::isnan(one) || std::isnan(other)) return std::isnan(one) == std::isnan(other) ? a < b : std::isnan(other);
    return one != other ? one > other : a < b;
  });
  for (size_t i = 0; i < order_.size(); i++) {
    const auto place = static_cast<size_t>(order_[i]);
    const bool present = task.answer == Answer::one_class ? i == 0 : logits[place] >= 0;
    const uint32_t flags = (present ? uint32_t{ETL_PRESENT} : 0U) | (i < top ? uint32_t{ETL_TOP} : 0U);
    if (flags != 0) found_.push_back({index, order_[i], flags, shares_[place], task.labels[place].c_str()});
  }
}

const std::vector<etl_answer> &Answers::of(const std::vector<Output> &outputs, size_t top) {
  found_.clear();
  for (size_t i = 0; i < tasks_.size(); i++) {
    const Task &task = tasks_[i];
    const std::vector<float> &values = outputs[places_[i]].values;
    const size_t wanted = task.answer == Answer::value ? 1 : task.labels.size();
    if (values.size() != wanted || wanted == 0)
      fail(ETL_BUNDLE, "the network gives " + std::to_string(values.size()) + " numbers where " +
                           std::to_string(wanted) + " are meant: export the bundle again");
    if (task.answer == Answer::value)
      found_.push_back({static_cast<int32_t>(i), -1, ETL_PRESENT, static_cast<double>(values[0]), nullptr});
    else
      labels(static_cast<int32_t>(i), task, values, top);
  }
  return found_;
}

}  // namespace etl
