/* JPEG and PNG to upright RGB, as Pillow reads them. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

#include "picture.h"

enum { ORIENTATION = 0x0112, MOST_SCANS = 500, TWELVE_BITS = 15, LONGEST_CHUNK = 64 << 20 };
/* Of texts in a PNG: what Pillow unpacks of one, and what all may take. */
enum { LEAST_TEXT = 1 << 20, MOST_TEXTS = 256 << 20 };

static uint32_t number(const uint8_t *data, int bytes, int little) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint32_t)data[i] << 8 * (little ? i : bytes - 1 - i);
  return value;
}

/* The orientation in EXIF's first directory: 0 where it says none, -1 where it says something that is none. */
static int exif_orientation(const uint8_t *data, size_t bytes) {
  static const char head[6] = "Exif\0";
  while (bytes >= 6 && memcmp(data, head, 6) == 0) {
    data += 6;
    bytes -= 6;
  }
  if (bytes < 8 || (memcmp(data, "II", 2) != 0 && memcmp(data, "MM", 2) != 0)) return 0;
  const int little = data[0] == 'I';
  const size_t begin = number(data + 4, 4, little);
  if (begin > bytes - 2 || begin < 8) return 0;
  const size_t entries = number(data + begin, 2, little);
  int found = 0;
  for (size_t i = 0; i < entries && begin + 2 + 12 * (i + 1) <= bytes; i++) {
    const uint8_t *entry = data + begin + 2 + 12 * i;
    const uint32_t type = number(entry + 2, 2, little), count = number(entry + 4, 4, little);
    if (number(entry, 2, little) != ORIENTATION) continue;
    const int size = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0;
    const uint32_t value = size && count == 1 ? number(entry + 8, size, little) : 0;
    found = value >= 1 && value <= 8 ? (int)value : -1;
  }
  return found;
}

static const uint8_t *find(const uint8_t *data, size_t bytes, const char *text) {
  const size_t length = strlen(text);
  for (size_t i = 0; i + length <= bytes; i++)
    if (memcmp(data + i, text, length) == 0) return data + i;
  return NULL;
}

/* As Pillow looks for it: the first that is followed by a digit. */
static int xmp_orientation(const uint8_t *data, size_t bytes) {
  static const char name[] = "tiff:Orientation";
  const uint8_t *end = data + bytes, *at = data;
  while ((at = find(at, (size_t)(end - at), name)) != NULL) {
    at += sizeof name - 1;
    const size_t left = (size_t)(end - at);
    const size_t skip = left >= 2 && memcmp(at, "=\"", 2) == 0 ? 2 : left >= 1 && *at == '>' ? 1 : 0;
    if (skip && left > skip && at[skip] >= '0' && at[skip] <= '9') return at[skip] - '0';
  }
  return 0;
}

static int chosen(int exif, int xmp) {
  const int found = exif ? exif : xmp;
  return found >= 1 && found <= 8 ? found : 1;
}

static int reserve_pixels(etl_picture *picture, uint64_t width, uint64_t height, const etl_decoding *how,
                          etl_failure *failure) {
  if (width * height > how->max_pixels) {
    (void)etl_fail(failure, ETL_INPUT, "the picture has %llux%llu pixels: shrink it; %llu are the most",
                   (unsigned long long)width, (unsigned long long)height, (unsigned long long)how->max_pixels);
    return 0;
  }
  picture->width = (int32_t)width;
  picture->height = (int32_t)height;
  if (etl_buffer_reserve(&picture->pixels, (size_t)(width * height) * 3)) return 1;
  (void)etl_fail(failure, ETL_MEMORY, "there is no memory for a picture of %llux%llu pixels: shrink it",
                 (unsigned long long)width, (unsigned long long)height);
  return 0;
}

/* --- JPEG --- */

typedef struct jpeg_errors {
  struct jpeg_error_mgr base;
  jmp_buf leave;
  char text[JMSG_LENGTH_MAX];
} jpeg_errors;

static void jpeg_leave(j_common_ptr jpeg) {
  jpeg_errors *errors = (jpeg_errors *)(void *)jpeg->err;
  jpeg->err->format_message(jpeg, errors->text);
  longjmp(errors->leave, 1);
}

/* Of all warnings only that of an end that came too early means pixels that nobody wrote. */
static void jpeg_warn(j_common_ptr jpeg, int level) {
  if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) jpeg_leave(jpeg);
}

/* A small file can ask for any number of passes over a large picture. */
static void jpeg_watch(j_common_ptr jpeg) {
  jpeg_errors *errors = (jpeg_errors *)(void *)jpeg->err;
  if (!jpeg->is_decompressor || ((j_decompress_ptr)jpeg)->input_scan_number <= MOST_SCANS) return;
  (void)snprintf(errors->text, sizeof errors->text, "it has more than %d scans", MOST_SCANS);
  longjmp(errors->leave, 1);
}

static int jpeg_orientation(j_decompress_ptr jpeg) {
  static const char xap[] = "http://ns.adobe.com/xap/1.0/";
  int exif = 0, xmp = 0;
  for (jpeg_saved_marker_ptr marker = jpeg->marker_list; marker != NULL; marker = marker->next) {
    if (marker->data_length >= 6 && memcmp(marker->data, "Exif\0", 6) == 0) {
      if (exif == 0) exif = exif_orientation(marker->data, marker->data_length);
    } else if (marker->data_length >= sizeof xap && memcmp(marker->data, xap, sizeof xap) == 0) {
      xmp = xmp_orientation(marker->data + sizeof xap, marker->data_length - sizeof xap);
    }
  }
  return chosen(exif, xmp);
}

static inline uint8_t of_255(unsigned a, unsigned b) {
  const unsigned product = a * b + 128;
  return (uint8_t)(((product >> 8) + product) >> 8);
}

/* Inks as Adobe writes them, 255 for none, to RGB as Pillow does. */
static void rgb_of_inks(const uint8_t *inks, uint8_t *rgb, size_t count) {
  for (size_t i = 0; i < count; i++, inks += 4, rgb += 3)
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(inks[3] - of_255(255U - inks[c], inks[3]));
}

static etl_status jpeg_rows(j_decompress_ptr jpeg, const etl_decoding *how, etl_picture *picture,
                            etl_failure *failure) {
  const int inks = jpeg->num_components == 4;
  if (jpeg->num_components != 1 && jpeg->num_components != 3 && !inks)
    return etl_fail(failure, ETL_INPUT, "it is a JPEG of %d colours: save it in RGB", jpeg->num_components);
  if (!reserve_pixels(picture, jpeg->image_width, jpeg->image_height, how, failure)) return failure->status;
  if (inks && !etl_buffer_reserve(&picture->spare, (size_t)jpeg->image_width * 4))
    return etl_fail(failure, ETL_MEMORY, "there is no memory for the picture: shrink it");
  jpeg->out_color_space = inks ? JCS_CMYK : JCS_RGB;
  (void)jpeg_start_decompress(jpeg);
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t *to = picture->pixels.data + (size_t)jpeg->output_scanline * jpeg->output_width * 3;
    JSAMPROW row = inks ? picture->spare.data : to;
    (void)jpeg_read_scanlines(jpeg, &row, 1);
    if (inks) rgb_of_inks(row, to, jpeg->output_width);
  }
  (void)jpeg_finish_decompress(jpeg);
  return ETL_OK;
}

static etl_status decode_jpeg(const uint8_t *data, size_t bytes, const etl_decoding *how, etl_picture *picture,
                              int *orientation, etl_failure *failure) {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_progress_mgr progress;
  jpeg_errors errors;
  memset(&progress, 0, sizeof progress);
  jpeg.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_leave;
  errors.base.emit_message = jpeg_warn;
  progress.progress_monitor = jpeg_watch;
  if (setjmp(errors.leave)) {
    const int memory = errors.base.msg_code == JERR_OUT_OF_MEMORY;
    jpeg_destroy_decompress(&jpeg);
    if (memory) return etl_fail(failure, ETL_MEMORY, "there is no memory for the picture: shrink it");
    return etl_fail(failure, ETL_INPUT, "it is a damaged JPEG (%s): replace it", errors.text);
  }
  jpeg_create_decompress(&jpeg);
  jpeg.progress = &progress;
  jpeg_mem_src(&jpeg, data, (unsigned long)bytes);
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  (void)jpeg_read_header(&jpeg, TRUE);
  *orientation = jpeg_orientation(&jpeg);
  const etl_status status = jpeg_rows(&jpeg, how, picture, failure);
  jpeg_destroy_decompress(&jpeg);
  return status;
}

/* --- PNG --- */

typedef struct png_source {
  const uint8_t *data;
  size_t left;
  int whole; /* all pixels are read: damage behind them takes nothing from the picture */
  etl_status status;
  char text[128];
} png_source;

static void png_take(png_structp png, png_bytep to, size_t bytes) {
  png_source *source = png_get_io_ptr(png);
  if (bytes > source->left) png_error(png, "it is cut off");
  memcpy(to, source->data, bytes);
  source->data += bytes;
  source->left -= bytes;
}

static void png_leave(png_structp png, png_const_charp text) {
  png_source *source = png_get_error_ptr(png);
  (void)snprintf(source->text, sizeof source->text, "%s", text);
  longjmp(png_jmpbuf(png), 1);
}

static void png_warn(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ImageMagick's text: three lines that say what it is, then EXIF in hexadecimal digits; decoded in place. */
static int profile_orientation(png_charp text) {
  char *at = text;
  for (int line = 0; line < 3; line++) {
    at = strchr(at, '\n');
    if (at == NULL) return 0;
    at++;
  }
  uint8_t *out = (uint8_t *)text;
  size_t bytes = 0;
  while (*at != '\0') {
    if (strchr(" \t\r\n", *at) != NULL) {
      at++;
      continue;
    }
    const int high = digit(at[0]), low = high < 0 ? -1 : digit(at[1]);
    if (low < 0) return -1;
    out[bytes++] = (uint8_t)(high << 4 | low);
    at += 2;
  }
  return exif_orientation(out, bytes);
}

static int png_orientation(png_structp png, png_infop info) {
  png_textp texts = NULL;
  png_bytep exif = NULL;
  png_uint_32 exif_bytes = 0;
  int count = 0, xmp = 0, profile = 0;
  (void)png_get_text(png, info, &texts, &count);
  for (int i = 0; i < count; i++) {
    if (texts[i].text == NULL) continue;
    if (strcmp(texts[i].key, "XML:com.adobe.xmp") == 0)
      xmp = xmp_orientation((const uint8_t *)texts[i].text, strlen(texts[i].text));
    if (strcmp(texts[i].key, "Raw profile type exif") == 0) profile = profile_orientation(texts[i].text);
  }
  if (png_get_eXIf_1(png, info, &exif_bytes, &exif)) return chosen(exif_orientation(exif, exif_bytes), xmp);
  return chosen(profile, xmp);
}

/* Grey of 16 bits, two bytes a pixel with the upper one first, to RGB in the same memory, from its end. */
static void rgb_of_wide_grey(uint8_t *pixels, size_t count, int by_content) {
  unsigned most = by_content ? 0 : 0xFFFF, bits = 8;
  for (size_t i = 0; by_content && i < count; i++) {
    const unsigned value = (unsigned)pixels[2 * i] << 8 | pixels[2 * i + 1];
    if (value > most) most = value;
  }
  while (bits < 16 && most >> bits) bits += 2;
  for (size_t i = count; i-- > 0;) {
    const unsigned value = (unsigned)pixels[2 * i] << 8 | pixels[2 * i + 1];
    memset(pixels + 3 * i, (int)(value >> (bits - 8) & 0xFF), 3);
  }
}

/* Of colours of 16 bits the upper 8 are read; where these are nearly nothing, the picture has fewer and is lost. */
static int of_twelve_bits(const uint8_t *pixels, size_t bytes) {
  uint8_t most = 0;
  for (size_t i = 0; i < bytes; i++)
    if (pixels[i] > most) most = pixels[i];
  return most > 0 && most <= TWELVE_BITS;
}

static etl_status png_rows(png_structp png, png_infop info, const etl_decoding *how, etl_picture *picture,
                           etl_failure *failure) {
  const int wide = png_get_bit_depth(png, info) == 16, colours = png_get_color_type(png, info);
  const int wide_grey = wide && colours == PNG_COLOR_TYPE_GRAY;
  if (!reserve_pixels(picture, png_get_image_width(png, info), png_get_image_height(png, info), how, failure))
    return failure->status;
  png_set_expand(png);
  png_set_strip_alpha(png);
  if (!wide_grey) {
    png_set_strip_16(png);
    if (!(colours & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
  }
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const size_t stride = png_get_rowbytes(png, info), count = (size_t)picture->width * (size_t)picture->height;
  if (stride != (size_t)picture->width * (wide_grey ? 2 : 3))
    return etl_fail(failure, ETL_INPUT, "it is a PNG of a kind that is not read: save it in RGB");
  for (int pass = 0; pass < passes; pass++)
    for (int32_t y = 0; y < picture->height; y++)
      png_read_row(png, picture->pixels.data + (size_t)y * stride, NULL);
  if (wide_grey)
    rgb_of_wide_grey(picture->pixels.data, count, how->by_content);
  else if (wide && how->by_content && of_twelve_bits(picture->pixels.data, 3 * count))
    return etl_fail(failure, ETL_INPUT, "it holds colours of 16 bits of which 12 are used at most: save it with 8 bits");
  return ETL_OK;
}

/* Most bytes that one chunk may become: what the longest one has in the file. 0 where there are so many packed texts,
 * each of which a few bytes may say, that all memory would go. */
static png_alloc_size_t chunk_limit(const uint8_t *data, size_t bytes) {
  size_t longest = LEAST_TEXT, texts = 0;
  for (size_t at = 8; at + 8 <= bytes;) {
    const size_t length = number(data + at, 4, 0);
    const uint8_t *name = data + at + 4;
    if (memcmp(name, "zTXt", 4) == 0 || memcmp(name, "iTXt", 4) == 0) texts++;
    if (length > bytes - at - 8) break;
    if (memcmp(name, "IDAT", 4) != 0 && length > longest) longest = length;
    at += 8 + length + 4;
  }
  if (longest > LONGEST_CHUNK) longest = LONGEST_CHUNK;
  return texts > MOST_TEXTS / longest ? 0 : longest;
}

/* What libpng leaves by longjmp it leaves to here: this frame alone lives as long as `png`. */
static etl_status png_guarded(png_structp png, png_infop info, const etl_decoding *how, etl_picture *picture,
                              etl_failure *failure) {
  png_source *source = png_get_error_ptr(png);
  if (setjmp(png_jmpbuf(png)) == 0) {
    png_read_info(png, info);
    source->status = png_rows(png, info, how, picture, failure);
    source->whole = source->status == ETL_OK;
    /* Chunks behind the pixels may hold the orientation. */
    if (source->whole) png_read_end(png, info);
  } else if (!source->whole) {
    return etl_fail(failure, ETL_INPUT, "it is a damaged PNG (%s): replace it", source->text);
  }
  return source->status;
}

static etl_status decode_png(const uint8_t *data, size_t bytes, const etl_decoding *how, etl_picture *picture,
                             int *orientation, etl_failure *failure) {
  png_source source = {data, bytes, 0, ETL_INPUT, ""};
  const png_alloc_size_t limit = chunk_limit(data, bytes);
  if (limit == 0) return etl_fail(failure, ETL_INPUT, "it holds too many texts: remove them");
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, png_leave, png_warn);
  png_infop info = png == NULL ? NULL : png_create_info_struct(png);
  if (info == NULL) {
    png_destroy_read_struct(&png, NULL, NULL);
    return etl_fail(failure, ETL_MEMORY, "there is no memory for the picture: shrink it");
  }
  png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);
  png_set_chunk_malloc_max(png, limit);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_read_fn(png, &source, png_take);
  const etl_status status = png_guarded(png, info, how, picture, failure);
  if (status == ETL_OK) *orientation = png_orientation(png, info);
  png_destroy_read_struct(&png, &info, NULL);
  return status;
}

/* --- both --- */

static etl_status turn(etl_picture *picture, int orientation, etl_failure *failure) {
  if (orientation == 1) return ETL_OK;
  const size_t width = (size_t)picture->width, height = (size_t)picture->height;
  if (!etl_buffer_reserve(&picture->spare, width * height * 3))
    return etl_fail(failure, ETL_MEMORY, "there is no memory to turn the picture: shrink it");
  /* 5 to 8 swap the axes; the others mirror one or both. */
  const int swapped = orientation >= 5;
  const int mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const int mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const size_t columns = swapped ? height : width, rows = swapped ? width : height;
  uint8_t *out = picture->spare.data;
  for (size_t y = 0; y < rows; y++)
    for (size_t x = 0; x < columns; x++, out += 3) {
      const size_t across = swapped ? y : x, down = swapped ? x : y;
      const size_t column = mirror_x ? width - 1 - across : across, row = mirror_y ? height - 1 - down : down;
      memcpy(out, picture->pixels.data + (row * width + column) * 3, 3);
    }
  const etl_buffer turned = picture->spare;
  picture->spare = picture->pixels;
  picture->pixels = turned;
  picture->width = (int32_t)columns;
  picture->height = (int32_t)rows;
  return ETL_OK;
}

etl_status etl_decode(const uint8_t *data, size_t bytes, const etl_decoding *how, etl_picture *picture,
                      etl_failure *failure) {
  static const uint8_t jpeg[3] = {0xFF, 0xD8, 0xFF}, png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  int orientation = 1;
  etl_status status = ETL_INPUT;
  if (bytes > 3 && memcmp(data, jpeg, 3) == 0)
    status = decode_jpeg(data, bytes, how, picture, &orientation, failure);
  else if (bytes > 8 && memcmp(data, png, 8) == 0)
    status = decode_png(data, bytes, how, picture, &orientation, failure);
  else
    return etl_fail(failure, ETL_INPUT, "it is neither JPEG nor PNG: convert it to one of them");
  return status == ETL_OK ? turn(picture, orientation, failure) : status;
}
