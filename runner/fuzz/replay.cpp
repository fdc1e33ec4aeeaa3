// Runs a target on files, where there is no libFuzzer.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "input.hpp"

int main(int count, char **words) {
  for (int i = 1; i < count; i++) {
    std::ifstream stream(words[i], std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    if (!stream && content.empty()) {
      std::fprintf(stderr, "cannot read %s\n", words[i]);
      return 2;
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(content.data()), content.size());
  }
  std::printf("%d files\n", count - 1);
  return 0;
}
