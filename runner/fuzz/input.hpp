// A fuzzer's bytes, taken from the front.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

class Input {
 public:
  Input(const uint8_t *data, size_t bytes) : data_(data), left_(bytes) {}

  size_t left() const { return left_; }
  uint8_t byte() { return number<uint8_t>(); }
  // From `least` to `most`.
  int64_t between(int64_t least, int64_t most) { return least + number<uint16_t>() % (most - least + 1); }

  // Zeros where nothing is left.
  template <class T>
  T number() {
    T value{};
    const size_t taken = std::min(left_, sizeof value);
    if (taken != 0) std::memcpy(&value, data_, taken);
    skip(taken);
    return value;
  }
  std::string text(size_t bytes) {
    std::string taken(reinterpret_cast<const char *>(data_), std::min(left_, bytes));
    skip(taken.size());
    return taken;
  }
  std::string rest() { return text(left_); }
  // Up to a zero byte, which is skipped.
  std::string part() {
    const auto *end = static_cast<const uint8_t *>(left_ != 0 ? std::memchr(data_, 0, left_) : nullptr);
    std::string taken = text(end != nullptr ? static_cast<size_t>(end - data_) : left_);
    skip(std::min<size_t>(left_, 1));
    return taken;
  }

 private:
  void skip(size_t bytes) {
    data_ += bytes;
    left_ -= bytes;
  }

  const uint8_t *data_;
  size_t left_;
};

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
