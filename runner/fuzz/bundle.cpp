// What a bundle's folder may hold: golden vectors, an ONNX file, a manifest as it came, and one that was sealed again,
// with its labels and its preprocessing.
#include <cstdlib>

// For what it keeps to itself: a manifest passes only with its own digest.
#include "../src/bundle.cpp"
#include "input.hpp"

namespace {

// A folder in memory where there is one.
std::string scratch() {
  for (const char *place : {"/dev/shm", "/tmp"}) {
    std::string name = std::string(place) + "/edgetl-fuzz-XXXXXX";
    if (mkdtemp(name.data()) != nullptr && mkdir((name + "/model").c_str(), 0700) == 0) return name;
  }
  std::abort();
}

void write(const std::string &path, const std::string &content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(content.data(), static_cast<std::streamsize>(content.size()));
}

std::string listed(const std::string &name, const std::string &content) {
  return "\"" + name + "\":{\"bytes\":" + std::to_string(content.size()) + ",\"sha256\":\"" + etl::sha256(content) + "\"}";
}

// Members of a manifest without white space, labels.json, preprocess.json and the model, behind a zero byte each.
void write_sealed(Input &input, const std::string &folder) {
  const std::string members = input.part(), labels = input.part(), picture = input.part(), model = input.rest();
  write(folder + "/labels.json", labels);
  write(folder + "/preprocess.json", picture);
  write(folder + "/model/model.onnx", model);
  const std::string files = listed("labels.json", labels) + "," + listed("model/model.onnx", model) + "," +
                            listed("preprocess.json", picture);
  const std::string body = "{\"files\":{" + files + "}," + members + "}";
  write(folder + "/manifest.json",
        "{\n \"digest\": \"" + etl::sha256(body) + "\"," + etl::indented(body).substr(1));
}

void take(Input &input) {
  static const std::string folder = scratch();
  static const uint8_t key[32] = {1};
  const uint8_t kind = input.byte();
  if (kind % 4 == 0) (void)etl::read_npz(input.rest());
  if (kind % 4 == 1) (void)etl::external_files(input.rest());
  if (kind % 4 == 2) {
    write(folder + "/manifest.json", input.rest());
    (void)etl::open_bundle(folder, "deployed", nullptr);
  }
  if (kind % 4 == 3) {
    write_sealed(input, folder);
    (void)etl::open_bundle(folder, (kind & 4) != 0 ? "float" : "deployed", (kind & 8) != 0 ? key : nullptr);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  Input input(data, bytes);
  try {
    take(input);
  } catch (const etl::Failure &) {
    // Refused, as it should be.
  } catch (const std::bad_alloc &) {
  }
  return 0;
}
