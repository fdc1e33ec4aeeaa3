// A bundle's folder, opened: every file in it is the one that the manifest, and the signature if one is asked for, say.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "picture.h"

namespace etl {

// What went wrong; never leaves the library.
struct Failure {
  etl_status status;
  std::string text;
};

[[noreturn]] inline void fail(etl_status status, std::string text) { throw Failure{status, std::move(text)}; }

// An array of numbers as numpy writes it.
struct Array {
  std::string type;  // numpy's, such as "|u1" or "<f4"
  std::vector<int64_t> shape;
  std::string bytes;
};

// The arrays of an .npz file whose members are not compressed, without those that hold no numbers and no texts.
std::map<std::string, Array> read_npz(const std::string &content);

// Names of the files in which an ONNX file keeps tensors; "" where it names none for one.
std::vector<std::string> external_files(const std::string &content);

enum class Answer { one_class, several_labels, value };

struct Task {
  std::string name;  // "" where there is one
  Answer answer;
  std::string output;  // of the network
  std::vector<std::string> labels;
};

struct Artifact {
  std::string backend, file, precision, device;
  std::string model, weights;  // bytes of its file, and of the one beside it where there is one
};

struct Bundle {
  std::string folder, target, task, digest;
  std::vector<Task> tasks;
  std::optional<etl_definition> picture;  // none where the network takes other arrays
  bool by_content = true;
  Artifact artifact;
  std::string golden, golden_sha256;  // name and hash; "" where there is none
};

// Throws Failure. `key` is 32 bytes, or null.
Bundle open_bundle(const std::string &folder, const std::string &role, const uint8_t *key);

// A regular file's content, into memory that is used again. Throws Failure with `status`.
void read_file(const char *path, uint64_t most, etl_status status, std::string &content);

// In hexadecimal digits.
std::string sha256(const std::string &data);

// The golden vectors, read again and held against their hash.
std::map<std::string, Array> read_golden(const Bundle &bundle);

}  // namespace etl
