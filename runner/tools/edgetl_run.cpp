// edgetl-run: a bundle's answers to pictures, one line of JSON each.
#include <openssl/evp.h>

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "edgetl.hpp"

namespace {

constexpr char usage[] =
    "usage: edgetl-run [OPTIONS] BUNDLE FILE...\n"
    "Prints a line of JSON for each JPEG or PNG file; '-' reads their names from standard input, one a line.\n"
    "  --key HEX          public key, 64 hexadecimal digits, that must have signed the bundle\n"
    "  --library FILE     the runtime's shared library\n"
    "  --role ROLE        deployed (as it is unless told) or float\n"
    "  --threads N        of the runtime; all cores unless told\n"
    "  --top N            labels to name; 5 unless told\n"
    "  --max-pixels N     of a picture; --max-bytes N of its file\n"
    "  --outputs          the network's numbers as well\n"
    "  --pixels           the SHA-256 of the network's picture instead of an answer; needs no runtime\n"
    "  --self-test        hold this machine against the bundle's golden vectors first\n";

struct Request {
  std::string bundle, key;
  std::vector<std::string> files;
  etl_options options{};
  uint32_t top = 0;
  bool outputs = false, pixels = false, self_test = false;
};

std::string quoted(const std::string &text) {
  std::string shown = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\') shown += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      shown += escaped;
    } else {
      shown += c;
    }
  }
  return shown + "\"";
}

std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char shown[40];
  std::snprintf(shown, sizeof shown, "%.17g", value);
  return shown;
}

std::string entries(const std::vector<etl_answer> &answers, int32_t task, uint32_t flag) {
  std::string shown;
  for (const etl_answer &answer : answers) {
    if (answer.task != task || (answer.flags & flag) == 0) continue;
    shown += shown.empty() ? "" : ", ";
    shown += "{\"label\": " + quoted(answer.label) + ", \"probability\": " + number(answer.number) + "}";
  }
  return "[" + shown + "]";
}

std::string answer_of_task(const std::vector<etl_answer> &answers, int32_t task) {
  for (const etl_answer &answer : answers)
    if (answer.task == task && answer.index < 0) return "{\"value\": " + number(answer.number) + "}";
  return "{\"labels\": " + entries(answers, task, ETL_PRESENT) + ", \"top\": " + entries(answers, task, ETL_TOP) + "}";
}

std::string answer_of(const edgetl::Model &model, const std::vector<etl_answer> &answers) {
  if (model.info().tasks == 1 && *etl_task(model.get(), 0) == '\0') return answer_of_task(answers, 0);
  std::string shown;
  for (int32_t task = 0; task < model.info().tasks; task++)
    shown += (task != 0 ? ", " : "") + quoted(etl_task(model.get(), task)) + ": " + answer_of_task(answers, task);
  return "{\"tasks\": {" + shown + "}}";
}

std::string outputs_of(edgetl::Model &model) {
  std::string shown;
  for (int32_t i = 0; i < model.info().outputs; i++) {
    std::string values;
    for (const float value : model.outputs(i)) values += (values.empty() ? "" : ", ") + number(static_cast<double>(value));
    shown += (i != 0 ? ", " : "") + quoted(etl_output(model.get(), i)) + ": [" + values + "]";
  }
  return "{" + shown + "}";
}

std::string timing_of(const edgetl::Model &model) {
  const etl_timing found = model.timing();
  return "{\"decode_ms\": " + number(found.decode_ms) + ", \"resize_ms\": " + number(found.resize_ms) +
         ", \"run_ms\": " + number(found.run_ms) + "}";
}

std::string sha256(const std::vector<uint8_t> &data) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_Digest(data.data(), data.size(), digest, &length, EVP_sha256(), nullptr);
  std::string shown;
  char two[3];
  for (unsigned int i = 0; i < length; i++) {
    std::snprintf(two, sizeof two, "%02x", digest[i]);
    shown += two;
  }
  return shown;
}

std::string line_of(edgetl::Model &model, const Request &request, const std::string &file) {
  if (request.pixels) {
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> data{std::istreambuf_iterator<char>(stream), {}};
    if (!stream && data.empty()) throw edgetl::Error(ETL_INPUT, "there is no file " + file);
    return "\"pixels\": " + quoted(sha256(model.preprocess(data.data(), data.size())));
  }
  const auto &answers = model.run_file(file, request.top);
  return "\"answer\": " + answer_of(model, answers) +
         (request.outputs ? ", \"outputs\": " + outputs_of(model) : std::string()) + ", \"timing\": " + timing_of(model);
}

bool print_line(edgetl::Model &model, const Request &request, const std::string &file) {
  std::string body;
  bool fine = true;
  try {
    body = line_of(model, request, file);
  } catch (const edgetl::Error &error) {
    body = "\"status\": " + std::to_string(error.status()) + ", \"error\": " + quoted(error.what());
    fine = false;
  }
  std::cout << "{\"file\": " << quoted(file) << ", " << body << "}" << std::endl;
  return fine;
}

void print_check(edgetl::Model &model) {
  const etl_check found = model.self_test();
  std::cout << "{\"self_test\": {\"samples\": " << found.samples
            << ", \"max_difference\": " << number(found.max_difference)
            << ", \"input_difference\": " << number(found.input_difference)
            << ", \"agreement\": " << number(found.agreement) << "}}" << std::endl;
}

bool read_key(const char *text, std::string &key) {
  if (std::strlen(text) != 64 || std::strspn(text, "0123456789abcdefABCDEF") != 64) return false;
  for (int i = 0; i < 64; i += 2) {
    unsigned value = 0;
    if (std::sscanf(std::string(text + i, 2).c_str(), "%2x", &value) != 1) return false;
    key += static_cast<char>(value);
  }
  return true;
}

bool take_option(const std::string &name, const char *value, Request &request) {
  if (name == "--key") return read_key(value, request.key);
  if (name == "--library") request.options.runtime_library = value;
  else if (name == "--role") request.options.role = value;
  else if (name == "--threads") request.options.threads = std::atoi(value);
  else if (name == "--top") request.top = static_cast<uint32_t>(std::atoi(value));
  else if (name == "--max-pixels") request.options.max_pixels = std::strtoull(value, nullptr, 10);
  else if (name == "--max-bytes") request.options.max_bytes = std::strtoull(value, nullptr, 10);
  else return false;
  return true;
}

bool take_arguments(int count, char **words, Request &request) {
  for (int i = 1; i < count; i++) {
    const std::string word = words[i];
    if (word == "--outputs") request.outputs = true;
    else if (word == "--pixels") request.pixels = true;
    else if (word == "--self-test") request.self_test = true;
    else if (word.size() > 2 && word.compare(0, 2, "--") == 0) {
      if (i + 1 >= count || !take_option(word, words[i + 1], request)) return false;
      i++;
    } else if (request.bundle.empty()) request.bundle = word;
    else request.files.push_back(word);
  }
  if (!request.key.empty()) request.options.public_key = reinterpret_cast<const uint8_t *>(request.key.data());
  if (request.pixels && !request.self_test) request.options.flags = ETL_NO_RUNTIME;
  return !request.bundle.empty();
}

int run(const Request &request) {
  edgetl::Model model(request.bundle, request.options);
  if (request.self_test) print_check(model);
  bool fine = true;
  for (const std::string &file : request.files) {
    if (file != "-") {
      fine = print_line(model, request, file) && fine;
      continue;
    }
    for (std::string name; std::getline(std::cin, name);) fine = print_line(model, request, name) && fine;
  }
  return fine ? 0 : 1;
}

}  // namespace

int main(int count, char **words) {
  Request request;
  if (!take_arguments(count, words, request)) {
    std::cerr << usage;
    return 2;
  }
  try {
    return run(request);
  } catch (const edgetl::Error &error) {
    std::cerr << "error: " << error.what() << std::endl;
    return error.status();
  } catch (const std::exception &error) {
    std::cerr << "error: " << error.what() << std::endl;
    return ETL_RUNTIME;
  }
}
