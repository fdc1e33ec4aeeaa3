// A picture's bytes, to the network's pixels, as some preprocess.json says.
#include <cstdlib>
#include <vector>

#include "../src/picture.h"
#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  // Kept from one to the next, as a handle keeps it.
  static etl_picture picture{};
  static etl_resizer resizer{};
  Input input(data, bytes);
  etl_definition d{};
  d.height = static_cast<int32_t>(input.between(1, 64));
  d.width = static_cast<int32_t>(input.between(1, 64));
  d.mode = static_cast<etl_mode>(input.byte() % 4);
  d.filter = static_cast<etl_filter>(input.byte() % 4);
  d.order = static_cast<etl_order>(input.byte() % 3);
  const int32_t least = d.mode == ETL_SQUASH ? std::min(d.height, d.width) : std::max(d.height, d.width);
  d.resize = least + (d.mode >= ETL_LETTERBOX ? 0 : input.byte() % 32);
  const etl_decoding how{1 << 20, input.byte() % 2};
  const std::string file = input.rest();
  // In memory of its own and of its size, so that one byte too far is seen.
  const std::vector<uint8_t> content(file.begin(), file.end());
  etl_failure failure{};
  if (etl_decode(content.data(), content.size(), &how, &picture, &failure) != ETL_OK) return 0;
  std::vector<uint8_t> out(static_cast<size_t>(d.height) * static_cast<size_t>(d.width) * (d.order == ETL_GREY ? 1 : 3));
  const size_t stride = static_cast<size_t>(picture.width) * 3;
  (void)etl_prepare(&d, picture.pixels.data, picture.width, picture.height, stride, &resizer, out.data(), &failure);
  return 0;
}
