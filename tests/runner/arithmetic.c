/* Writes a JPEG with arithmetic coding, "sequential" or "progressive", to standard output. */
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

int main(int count, char **words) {
  enum { WIDTH = 75, HEIGHT = 58 };
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr errors;
  unsigned char row[WIDTH * 3];
  JSAMPROW rows[1] = {row};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  jpeg_stdio_dest(&jpeg, stdout);
  jpeg.image_width = WIDTH;
  jpeg.image_height = HEIGHT;
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 90, TRUE);
  jpeg.arith_code = TRUE;
  if (count > 1 && strcmp(words[1], "progressive") == 0) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  for (int y = 0; y < HEIGHT; y++) {
    for (int x = 0; x < WIDTH * 3; x++) row[x] = (unsigned char)(x * x * 7 + y * 31 * (x % 5));
    jpeg_write_scanlines(&jpeg, rows, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  return 0;
}
