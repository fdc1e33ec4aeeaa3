// Two formats of which little is needed: numpy's .npz, and protobuf as far as ONNX keeps names of files in it. Either may
// come from anybody, so each size is held against what is there.
#include <array>
#include <cstring>
#include <limits>

#include "bundle.hpp"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "golden vectors and networks' arrays are read as they lie: the runner is for little-endian machines"
#endif

namespace etl {
namespace {

constexpr size_t most_members = 1024;
constexpr uint64_t most_fields = 5'000'000;

[[noreturn]] void no_npz(const std::string &why) {
  fail(ETL_BUNDLE, "golden.npz is refused: " + why + ": export the bundle again");
}

uint64_t little(const std::string &data, size_t at, size_t bytes) {
  if (at > data.size() || bytes > data.size() - at) no_npz("it is cut off");
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++) value |= uint64_t{static_cast<uint8_t>(data[at + i])} << (8 * i);
  return value;
}

// What stands behind `key` in the header of an array, which numpy writes as a Python dict.
std::string header_value(const std::string &header, const std::string &key, char end) {
  const size_t at = header.find("'" + key + "':");
  const size_t begin = at == std::string::npos ? at : header.find_first_not_of(' ', at + key.size() + 3);
  const size_t stop = begin == std::string::npos ? begin : header.find(end, begin + 1);
  if (stop == std::string::npos) no_npz("an array has no " + key);
  return header.substr(begin, stop - begin);
}

std::vector<int64_t> shape_of(const std::string &text) {
  std::vector<int64_t> shape;
  for (size_t at = 1; at < text.size();) {
    if (text[at] == ',' || text[at] == ' ') {
      at++;
      continue;
    }
    int64_t size = 0;
    const size_t begin = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && size < (int64_t{1} << 40); at++)
      size = 10 * size + (text[at] - '0');
    if (at == begin || shape.size() == 8) no_npz("an array has an odd shape");
    shape.push_back(size);
  }
  return shape;
}

// Bytes of one item of a type such as "<f4"; texts have four for each character.
uint64_t item_bytes(const std::string &type) {
  uint64_t size = 0;
  for (size_t i = 2; i < type.size() && type[i] >= '0' && type[i] <= '9' && size < (1 << 20); i++)
    size = 10 * size + static_cast<uint64_t>(type[i] - '0');
  return type.size() > 1 && type[1] == 'U' ? 4 * size : size;
}

Array read_npy(const std::string &data) {
  static const std::string magic("\x93NUMPY\x01\x00", 8);
  if (data.compare(0, magic.size(), magic) != 0) no_npz("a member is no plain array");
  const uint64_t length = little(data, 8, 2);
  if (length > data.size() - 10) no_npz("it is cut off");
  const std::string header = data.substr(10, length);
  Array array{header_value(header, "descr", ',').substr(1), shape_of(header_value(header, "shape", ')')),
              data.substr(10 + length)};
  if (array.type.size() < 3) no_npz("an array is of no known type");
  if (array.type.front() == '>') no_npz("an array is of another order of bytes");
  array.type.pop_back();
  uint64_t bytes = item_bytes(array.type);
  for (const int64_t size : array.shape) {
    if (size > 0 && bytes > std::numeric_limits<uint64_t>::max() / static_cast<uint64_t>(size))
      no_npz("an array says to be larger than any is");
    bytes *= static_cast<uint64_t>(size);
  }
  if (bytes != array.bytes.size()) no_npz("an array says to be of another size than it is");
  if (array.shape.size() > 1 && header_value(header, "fortran_order", ',') != "False")
    no_npz("an array is stored by columns");
  return array;
}

// Where the directory of a zip file begins, and how many members it lists.
std::pair<uint64_t, uint64_t> directory_of(const std::string &data) {
  const size_t at = data.rfind(std::string("PK\x05\x06", 4));
  if (at == std::string::npos) no_npz("it is no zip file");
  return {little(data, at + 16, 4), little(data, at + 10, 2)};
}

std::string member(const std::string &data, uint64_t entry, std::string &name) {
  const uint64_t size = little(data, entry + 24, 4), packed = little(data, entry + 20, 4);
  if (little(data, entry + 10, 2) != 0 || size != packed) no_npz("it is compressed");
  const uint64_t local = little(data, entry + 42, 4);
  name = data.substr(entry + 46, little(data, entry + 28, 2));
  if (little(data, local, 4) != 0x04034b50) no_npz("it is cut off");
  const uint64_t begin = local + 30 + little(data, local + 26, 2) + little(data, local + 28, 2);
  if (begin > data.size() || size > data.size() - begin) no_npz("it is cut off");
  return data.substr(begin, size);
}

struct Span {
  size_t begin, end;
};

[[noreturn]] void no_onnx(const char *why) {
  fail(ETL_BUNDLE, std::string("the model is no ONNX file (") + why + "): export the bundle again");
}

uint64_t varint(const std::string &data, size_t &at, size_t end) {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (at >= end) no_onnx("it is cut off");
    const auto byte = static_cast<uint8_t>(data[at++]);
    if (shift < 64) value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  no_onnx("a number does not end");
}

struct Field {
  uint64_t number, value;
  bool is_span;
  Span span;
};

Field next_field(const std::string &data, size_t &at, size_t end) {
  const uint64_t tag = varint(data, at, end), kind = tag & 7;
  // Parsers drop the bits beyond 32, and would find another field than this one.
  if (tag >> 3 == 0 || tag > std::numeric_limits<uint32_t>::max()) no_onnx("a byte begins no field");
  if (kind == 0) return {tag >> 3, varint(data, at, end), false, {}};
  if (kind != 1 && kind != 2 && kind != 5) no_onnx("a byte begins no field");
  const uint64_t size = kind == 2 ? varint(data, at, end) : kind == 1 ? 8 : 4;
  if (size > end - at) no_onnx("a field is cut off");
  const Span span{at, at + static_cast<size_t>(size)};
  at = span.end;
  return {tag >> 3, 0, true, span};
}

enum Message { model, training, function, graph, node, attribute, sparse, tensor, entry, other };

// Message and field → message that stands in it, of those that lead to tensors (onnx/onnx.proto).
Message inside(Message message, uint64_t field) {
  struct Step {
    Message message;
    uint64_t field;
    Message inside;
  };
  static constexpr std::array<Step, 19> steps{{
      {model, 7, graph},       {model, 20, training},    {model, 25, function},   {training, 1, graph},
      {training, 2, graph},    {function, 7, node},      {function, 11, attribute}, {graph, 1, node},
      {graph, 5, tensor},      {graph, 15, sparse},      {node, 5, attribute},    {attribute, 5, tensor},
      {attribute, 6, graph},   {attribute, 10, tensor},  {attribute, 11, graph},  {attribute, 22, sparse},
      {attribute, 23, sparse}, {sparse, 1, tensor},      {sparse, 2, tensor},
  }};
  for (const Step &step : steps)
    if (step.message == message && step.field == field) return step.inside;
  return message == tensor && field == 13 ? entry : other;
}

std::string location(const std::string &data, Span span) {
  std::string key, value;
  for (size_t at = span.begin; at < span.end;) {
    const Field field = next_field(data, at, span.end);
    if (!field.is_span) continue;
    std::string text = data.substr(field.span.begin, field.span.end - field.span.begin);
    if (field.number == 1) key = std::move(text);
    else if (field.number == 2) value = std::move(text);
  }
  return key == "location" ? value : "";
}

}  // namespace

std::map<std::string, Array> read_npz(const std::string &content) {
  auto [entry, count] = directory_of(content);
  if (count > most_members) no_npz("it has too many members");
  std::map<std::string, Array> arrays;
  for (uint64_t i = 0; i < count; i++) {
    if (little(content, entry, 4) != 0x02014b50) no_npz("it is cut off");
    std::string name;
    const std::string data = member(content, entry, name);
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0)
      arrays.emplace(name.substr(0, name.size() - 4), read_npy(data));
    entry += 46 + little(content, entry + 28, 2) + little(content, entry + 30, 2) + little(content, entry + 32, 2);
  }
  return arrays;
}

std::vector<std::string> external_files(const std::string &content) {
  struct Waiting {
    Message message;
    Span span;
  };
  std::vector<Waiting> waiting{{model, {0, content.size()}}};
  std::vector<std::string> found;
  uint64_t seen = 0;
  if (content.empty()) no_onnx("it is empty");
  // ONNX Runtime goes by this mark, whatever a file is called.
  if (content.size() >= 8 && content.compare(4, 4, "ORTM") == 0) no_onnx("it is of another format");
  while (!waiting.empty()) {
    const Waiting now = waiting.back();
    waiting.pop_back();
    for (size_t at = now.span.begin; at < now.span.end;) {
      const Field field = next_field(content, at, now.span.end);
      if (++seen > most_fields) no_onnx("it has too many fields");
      const Message within = inside(now.message, field.number);
      const bool elsewhere = !field.is_span && static_cast<uint32_t>(field.value) == 1;
      if (now.message == tensor && field.number == 14 && elsewhere) found.emplace_back();
      if (!field.is_span || within == other) continue;
      if (within == entry) found.push_back(location(content, field.span));
      else waiting.push_back({within, field.span});
    }
  }
  return found;
}

}  // namespace etl
