/* A picture's way from its file's bytes to the network's pixels, in plain C: libjpeg and libpng leave by longjmp. */
#ifndef ETL_PICTURE_H
#define ETL_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "edgetl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory that is kept from one picture to the next, so that a warm handle allocates nothing. */
typedef struct etl_buffer {
  uint8_t *data;
  size_t capacity;
} etl_buffer;

/* Make room; what was in it is lost. 0 where there is no memory. */
int etl_buffer_reserve(etl_buffer *buffer, size_t bytes);
void etl_buffer_free(etl_buffer *buffer);

/* RGB, 8 bits, rows from the top without gaps. */
typedef struct etl_picture {
  etl_buffer pixels, spare;
  int32_t width, height;
} etl_picture;

typedef struct etl_failure {
  etl_status status;
  char text[256];
} etl_failure;

etl_status etl_fail(etl_failure *failure, etl_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

typedef struct etl_decoding {
  uint64_t max_pixels;
  int by_content; /* greys of 16 bits are scaled by the bits that the brightest one needs; else the upper 8 are kept */
} etl_decoding;

/* Decode a JPEG or PNG and turn it upright as its EXIF, or else XMP, orientation says. */
etl_status etl_decode(const uint8_t *data, size_t bytes, const etl_decoding *how, etl_picture *picture,
                      etl_failure *failure);

typedef enum etl_mode { ETL_SHORTER, ETL_SQUASH, ETL_LETTERBOX, ETL_LONGEST } etl_mode;
typedef enum etl_filter { ETL_NEAREST, ETL_BILINEAR, ETL_BICUBIC, ETL_LANCZOS } etl_filter;
typedef enum etl_order { ETL_RGB, ETL_BGR, ETL_GREY } etl_order;

/* What preprocess.json says, as edgetl/inputs/image.py defines it. */
typedef struct etl_definition {
  int32_t height, width, resize;
  etl_mode mode;
  etl_filter filter;
  etl_order order;
  uint8_t pad[3];
} etl_definition;

/* For each place of an axis: which source pixels count, and how much, in units of 2^-22. */
typedef struct etl_taps {
  etl_buffer memory;
  int32_t count, most;
  int32_t *first, *number, *weights;
} etl_taps;

typedef struct etl_resizer {
  etl_taps across, down;
  etl_buffer rows, sums, weights;
} etl_resizer;

void etl_resizer_free(etl_resizer *resizer);

/* Resize, crop or pad, and order the channels: `out` gets height * width * channels bytes. */
etl_status etl_prepare(const etl_definition *definition, const uint8_t *rgb, int32_t width, int32_t height,
                       size_t stride, etl_resizer *resizer, uint8_t *out, etl_failure *failure);

#ifdef __cplusplus
}
#endif
#endif
