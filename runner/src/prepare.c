/* Pillow's resampling, bit for bit: weights in double, normalised, rounded half away from zero to 2^-22; sums in int32;
 * uint8 after each pass; width first; a pass that keeps the size is left out. Only what the crop keeps is computed.
 *
 * This file has to be compiled without contraction of products and sums (-ffp-contract=off): a fused one rounds once
 * instead of twice, and a weight may come out different. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture.h"

enum { BITS = 22, HALF = 1 << (BITS - 1) };
/* As MOST_PIXELS of edgetl/inputs/pictures.py: what resizing may hold at once. */
static const int64_t most_pixels = (int64_t)1 << 26;
/* Weights of one axis: 512 MiB. A strip of any length may become one of a few pixels, each of which needs all of it. */
static const int64_t most_taps = (int64_t)1 << 27;
static const double pi = 3.14159265358979323846;

int etl_buffer_reserve(etl_buffer *buffer, size_t bytes) {
  if (bytes <= buffer->capacity) return 1;
  free(buffer->data);
  buffer->data = malloc(bytes);
  buffer->capacity = buffer->data ? bytes : 0;
  return buffer->data != NULL;
}

void etl_buffer_free(etl_buffer *buffer) {
  free(buffer->data);
  buffer->data = NULL;
  buffer->capacity = 0;
}

etl_status etl_fail(etl_failure *failure, etl_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  failure->status = status;
  (void)vsnprintf(failure->text, sizeof failure->text, format, arguments);
  va_end(arguments);
  return status;
}

static etl_status no_memory(etl_failure *failure) {
  return etl_fail(failure, ETL_MEMORY, "there is no memory for the picture: shrink it");
}

void etl_resizer_free(etl_resizer *resizer) {
  etl_buffer_free(&resizer->across.memory);
  etl_buffer_free(&resizer->down.memory);
  etl_buffer_free(&resizer->rows);
  etl_buffer_free(&resizer->sums);
  etl_buffer_free(&resizer->weights);
}

static double sinc(double x) {
  if (x == 0.0) return 1.0;
  x = x * pi;
  return sin(x) / x;
}

static double weight_at(etl_filter filter, double x) {
  const double a = -0.5;
  if (filter == ETL_LANCZOS) return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
  if (x < 0.0) x = -x;
  if (filter == ETL_BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static int reserve_taps(etl_taps *taps, int32_t count, int32_t most) {
  const size_t places = (size_t)count * ((size_t)most + 2);
  if (!etl_buffer_reserve(&taps->memory, places * sizeof(int32_t))) return 0;
  taps->count = count;
  taps->most = most;
  taps->first = (int32_t *)(void *)taps->memory.data;
  taps->number = taps->first + count;
  taps->weights = taps->number + count;
  return 1;
}

/* Pillow adds the step up from place to place, with what that rounds away. */
static int nearest_taps(etl_taps *taps, int32_t from, int32_t to, int32_t begin, int32_t count) {
  const double step = (double)from / to;
  double place = step * 0.5;
  if (!reserve_taps(taps, count, 1)) return 0;
  for (int32_t i = 0; i < begin + count; i++, place += step) {
    if (i < begin) continue;
    const int32_t source = (int32_t)place;
    taps->first[i - begin] = source < from ? source : from - 1;
    taps->number[i - begin] = 1;
    taps->weights[i - begin] = 1 << BITS;
  }
  return 1;
}

static void fill_taps(etl_taps *taps, int32_t i, const double *weights, double total, int32_t number) {
  int32_t *fixed = taps->weights + (size_t)i * (size_t)taps->most;
  for (int32_t k = 0; k < number; k++) {
    const double weight = total != 0.0 ? weights[k] / total : weights[k];
    fixed[k] = weight < 0 ? (int32_t)(-0.5 + weight * (1 << BITS)) : (int32_t)(0.5 + weight * (1 << BITS));
  }
}

/* How far from its centre a place of the result takes pixels of the source. */
static double reach(etl_filter filter, double scale) {
  static const double supports[] = {0.0, 1.0, 2.0, 3.0};
  return supports[filter] * (scale < 1.0 ? 1.0 : scale);
}

static int too_many_taps(etl_filter filter, int32_t from, int64_t to, int32_t count) {
  return from != to && (2.0 * ceil(reach(filter, (double)from / (double)to)) + 3.0) * count > (double)most_taps;
}

/* Taps of places begin … begin + count - 1 of an axis that goes from `from` pixels to `to`. */
static int make_taps(etl_taps *taps, etl_filter filter, int32_t from, int32_t to, int32_t begin, int32_t count,
                     etl_buffer *scratch) {
  if (filter == ETL_NEAREST) return nearest_taps(taps, from, to, begin, count);
  const double scale = (double)from / to;
  const double widened = scale < 1.0 ? 1.0 : scale;
  const double support = reach(filter, scale);
  const int32_t most = (int32_t)ceil(support) * 2 + 1;
  if (!reserve_taps(taps, count, most) || !etl_buffer_reserve(scratch, (size_t)most * sizeof(double))) return 0;
  double *weights = (double *)(void *)scratch->data;
  const double narrowed = 1.0 / widened;
  for (int32_t i = 0; i < count; i++) {
    const double centre = (begin + i + 0.5) * scale;
    int32_t low = (int32_t)(centre - support + 0.5);
    int32_t high = (int32_t)(centre + support + 0.5);
    double total = 0.0;
    if (low < 0) low = 0;
    if (high > from) high = from;
    for (int32_t x = low; x < high; x++) {
      weights[x - low] = weight_at(filter, (x - centre + 0.5) * narrowed);
      total += weights[x - low];
    }
    taps->first[i] = low;
    taps->number[i] = high - low;
    fill_taps(taps, i, weights, total, high - low);
  }
  return 1;
}

static inline uint8_t clipped(int32_t sum) {
  const int32_t value = sum >> BITS;
  return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void row_of_three(const uint8_t *source, const etl_taps *taps, uint8_t *out) {
  for (int32_t i = 0; i < taps->count; i++, out += 3) {
    const int32_t *weights = taps->weights + (size_t)i * (size_t)taps->most;
    const uint8_t *pixel = source + (size_t)taps->first[i] * 3;
    int32_t red = HALF, green = HALF, blue = HALF;
    for (int32_t k = 0; k < taps->number[i]; k++, pixel += 3) {
      red += pixel[0] * weights[k];
      green += pixel[1] * weights[k];
      blue += pixel[2] * weights[k];
    }
    out[0] = clipped(red);
    out[1] = clipped(green);
    out[2] = clipped(blue);
  }
}

static void row_of_one(const uint8_t *source, const etl_taps *taps, uint8_t *out) {
  for (int32_t i = 0; i < taps->count; i++) {
    const int32_t *weights = taps->weights + (size_t)i * (size_t)taps->most;
    const uint8_t *pixel = source + taps->first[i];
    int32_t grey = HALF;
    for (int32_t k = 0; k < taps->number[i]; k++) grey += pixel[k] * weights[k];
    out[i] = clipped(grey);
  }
}

/* One row of the result from the rows that count for it, along which the sums run: they are next to each other. */
static void column_sums(const uint8_t *rows, size_t stride, const int32_t *weights, int32_t number, size_t length,
                        int32_t *restrict sums, uint8_t *restrict out) {
  for (size_t x = 0; x < length; x++) sums[x] = HALF;
  for (int32_t k = 0; k < number; k++) {
    const uint8_t *restrict row = rows + (size_t)k * stride;
    const int32_t weight = weights[k];
    for (size_t x = 0; x < length; x++) sums[x] += row[x] * weight;
  }
  for (size_t x = 0; x < length; x++) out[x] = clipped(sums[x]);
}

/* ITU-R 601-2 luma as Pillow computes it. */
static inline uint8_t luma(const uint8_t *rgb) {
  return (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

/* Where the result's pixels come from and go to: a part of the resized picture, to a place in the network's. */
typedef struct geometry {
  int32_t scaled_width, scaled_height;
  int32_t left, top, columns, rows;
  int32_t to_left, to_top;
} geometry;

static void scaled_size(const etl_definition *d, int64_t width, int64_t height, int64_t *scaled_width,
                        int64_t *scaled_height) {
  if (d->mode == ETL_SHORTER) {
    const int64_t shorter = width < height ? width : height, longer = width < height ? height : width;
    const int64_t length = d->resize * longer / shorter;
    *scaled_width = width <= height ? d->resize : length;
    *scaled_height = width <= height ? length : d->resize;
  } else if (d->mode == ETL_SQUASH) {
    const int64_t shorter = d->height < d->width ? d->height : d->width;
    *scaled_width = (int64_t)d->resize * d->width / shorter;
    *scaled_height = (int64_t)d->resize * d->height / shorter;
  } else if (width * d->height <= d->width * height) {
    const int64_t fit = (2 * width * d->height + height) / (2 * height);
    *scaled_width = fit < 1 ? 1 : fit;
    *scaled_height = d->height;
  } else {
    const int64_t fit = (2 * height * d->width + width) / (2 * width);
    *scaled_width = d->width;
    *scaled_height = fit < 1 ? 1 : fit;
  }
}

static etl_status arrange(const etl_definition *d, int32_t width, int32_t height, geometry *g, etl_failure *failure) {
  int64_t across = 0, down = 0;
  scaled_size(d, width, height, &across, &down);
  /* In this order: the product of any two sides may be more than int64 holds. */
  if (across > most_pixels || down > most_pixels || across * (down > height ? down : height) > most_pixels)
    return etl_fail(failure, ETL_INPUT,
                    "the picture has %dx%d pixels, of which resizing to %lldx%lld makes too many to hold: crop it",
                    (int)width, (int)height, (long long)across, (long long)down);
  const int padded = d->mode == ETL_LETTERBOX || d->mode == ETL_LONGEST;
  const int centred = d->mode == ETL_LETTERBOX;
  g->scaled_width = (int32_t)across;
  g->scaled_height = (int32_t)down;
  g->left = padded ? 0 : (g->scaled_width - d->width) / 2;
  g->top = padded ? 0 : (g->scaled_height - d->height) / 2;
  g->columns = padded ? g->scaled_width : d->width;
  g->rows = padded ? g->scaled_height : d->height;
  g->to_left = centred ? (d->width - g->scaled_width) / 2 : 0;
  g->to_top = centred ? (d->height - g->scaled_height) / 2 : 0;
  if (too_many_taps(d->filter, width, across, g->columns) || too_many_taps(d->filter, height, down, g->rows))
    return etl_fail(failure, ETL_INPUT, "the picture has %dx%d pixels, and one of the network's needs too many: crop it",
                    (int)width, (int)height);
  return ETL_OK;
}

static void fill_pad(const etl_definition *d, uint8_t *out) {
  const size_t pixels = (size_t)d->height * (size_t)d->width;
  if (d->order == ETL_GREY) {
    memset(out, luma(d->pad), pixels);
    return;
  }
  for (size_t i = 0; i < pixels; i++) memcpy(out + 3 * i, d->pad, 3);
}

static void swap_ends(uint8_t *pixels, size_t count) {
  for (size_t i = 0; i < count; i++, pixels += 3) {
    const uint8_t red = pixels[0];
    pixels[0] = pixels[2];
    pixels[2] = red;
  }
}

/* Rows of the picture, resized across, that the pass down needs; grey comes before resizing. */
static int resize_across(const etl_definition *d, const geometry *g, const uint8_t *rgb, int32_t width, size_t stride,
                         int32_t first, int32_t rows, etl_resizer *r) {
  const size_t channels = d->order == ETL_GREY ? 1 : 3, length = (size_t)g->columns * channels;
  const int same = g->scaled_width == width;
  if (!etl_buffer_reserve(&r->rows, length * (size_t)rows + (size_t)width)) return 0;
  if (!same && !make_taps(&r->across, d->filter, width, g->scaled_width, g->left, g->columns, &r->weights)) return 0;
  uint8_t *grey = r->rows.data + length * (size_t)rows;
  for (int32_t y = 0; y < rows; y++) {
    const uint8_t *source = rgb + (size_t)(first + y) * stride;
    uint8_t *out = r->rows.data + length * (size_t)y;
    if (channels == 1) {
      for (int32_t x = 0; x < width; x++) grey[x] = luma(source + 3 * (size_t)x);
      source = grey;
    }
    if (same)
      memcpy(out, source + (size_t)g->left * channels, length);
    else if (channels == 1)
      row_of_one(source, &r->across, out);
    else
      row_of_three(source, &r->across, out);
  }
  return 1;
}

etl_status etl_prepare(const etl_definition *d, const uint8_t *rgb, int32_t width, int32_t height, size_t stride,
                       etl_resizer *r, uint8_t *out, etl_failure *failure) {
  geometry g = {0};
  if (arrange(d, width, height, &g, failure) != ETL_OK) return failure->status;
  const size_t channels = d->order == ETL_GREY ? 1 : 3, length = (size_t)g.columns * channels;
  const int same = g.scaled_height == height;
  int32_t first = g.top, last = g.top + g.rows;
  if (!same) {
    if (!make_taps(&r->down, d->filter, height, g.scaled_height, g.top, g.rows, &r->weights)) return no_memory(failure);
    first = r->down.first[0];
    last = r->down.first[g.rows - 1] + r->down.number[g.rows - 1];
  }
  if (!resize_across(d, &g, rgb, width, stride, first, last - first, r) ||
      !etl_buffer_reserve(&r->sums, length * sizeof(int32_t)))
    return no_memory(failure);
  if (g.columns != d->width || g.rows != d->height) fill_pad(d, out);
  for (int32_t y = 0; y < g.rows; y++) {
    uint8_t *to = out + ((size_t)(g.to_top + y) * (size_t)d->width + (size_t)g.to_left) * channels;
    if (same) {
      memcpy(to, r->rows.data + length * (size_t)y, length);
      continue;
    }
    column_sums(r->rows.data + length * (size_t)(r->down.first[y] - first), length,
                r->down.weights + (size_t)y * (size_t)r->down.most, r->down.number[y], length,
                (int32_t *)(void *)r->sums.data, to);
  }
  if (d->order == ETL_BGR) swap_ends(out, (size_t)d->height * (size_t)d->width);
  return ETL_OK;
}
