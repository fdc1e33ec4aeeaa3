/* edgetl.h: an edgetl bundle in C. Open a bundle, hand it pictures, read answers.
 *
 * Every function that can fail returns an etl_status and leaves a sentence for etl_error(). Whatever is filled lies in
 * the caller's memory. A handle serves one thread at a time; there may be as many handles as wanted. No C++ exception
 * leaves the library.
 *
 * Structures that may grow begin with `size`, which the caller sets to sizeof: a library that knows more fields leaves
 * those beyond it alone, and takes fields of options that it does not know only where they are 0.
 */
#ifndef EDGETL_H
#define EDGETL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ETL_API __attribute__((visibility("default")))
#else
#define ETL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ETL_API_VERSION 1

typedef struct etl_model etl_model;

typedef enum etl_status {
  ETL_OK = 0,
  ETL_USAGE = 2,       /* an argument that cannot be: a null pointer, a buffer too small */
  ETL_BUNDLE = 3,      /* no bundle, or one that was altered, or is malformed */
  ETL_SIGNATURE = 4,   /* not signed by the given key, or not as it was signed */
  ETL_INPUT = 5,       /* a picture that is damaged, too large, or of a format that is not read */
  ETL_RUNTIME = 6,     /* the inference runtime is missing, refuses the model, or failed */
  ETL_MEMORY = 7,      /* no memory left */
  ETL_UNSUPPORTED = 8, /* a sound bundle that this runner does not serve, such as one for texts */
  ETL_SELF_TEST = 9    /* this machine reads, computes or answers otherwise than the bundle expects */
} etl_status;

enum { ETL_NO_RUNTIME = 1 /* open without a runtime: for etl_preprocess and checks of integrity */ };

typedef struct etl_options {
  size_t size;
  uint32_t flags;
  int32_t threads;             /* of the runtime; 0: one for each core */
  const char *role;            /* "deployed" or "float"; NULL: deployed */
  const char *runtime_library; /* path of the runtime's shared library; NULL: its usual names */
  const uint8_t *public_key;   /* 32 bytes of Ed25519 that must have signed all of the bundle; NULL: nobody asks */
  uint64_t max_pixels;         /* of a picture, before it is decoded; 0: 134217728 */
  uint64_t max_bytes;          /* of a picture's file; 0: 268435456 */
} etl_options;

typedef struct etl_info {
  size_t size;
  int32_t height, width, channels; /* of the network's picture; 0 where it takes other arrays */
  int32_t tasks, labels, outputs;  /* how many; labels of all tasks together */
  const char *target, *task, *precision, *digest; /* live as long as the handle */
} etl_info;

enum {
  ETL_PRESENT = 1, /* it is what the sample is: the one class, a label above its threshold, the value */
  ETL_TOP = 2      /* it is among the most probable ones that were asked for */
};

/* One thing that is said of a sample. Those of a task stand together, the most probable first. */
typedef struct etl_answer {
  int32_t task;      /* of etl_task(); 0 where there is one */
  int32_t index;     /* of the label within its task; -1: `number` is the value itself */
  uint32_t flags;    /* ETL_PRESENT, ETL_TOP */
  double number;     /* probability, 0 to 1, or value in the labels' unit */
  const char *label; /* lives as long as the handle; NULL for a value */
} etl_answer;

typedef struct etl_answers {
  size_t size;
  uint32_t top;      /* in: how many of the most probable labels to name for each task; 0: 5 */
  etl_answer *items; /* in: the caller's array */
  size_t capacity;   /* in: its length; etl_info.labels + etl_info.tasks always suffice */
  size_t count;      /* out: how many there are; more than capacity with ETL_USAGE; 0 where the run failed */
} etl_answers;

typedef struct etl_tensor {
  const char *name; /* NULL where the network has one input */
  const void *data; /* one sample, in the network's own type and aligned for it, rows first */
  size_t bytes;
} etl_tensor;

typedef struct etl_timing {
  size_t size;
  double decode_ms, resize_ms, run_ms; /* of the last sample; resize: turn, resize, crop, pad, order of channels */
} etl_timing;

typedef struct etl_check {
  size_t size;
  int32_t samples;
  double max_difference;   /* of the outputs, as a share of their range; at most 0.05 passes */
  double input_difference; /* mean, of the probe's pixels, as a share of 255; at most 0.006 passes; -1: no probe */
  double agreement;        /* share of the clear answers that are as expected; -1: none to compare */
} etl_check;

ETL_API int32_t etl_version(void); /* ETL_API_VERSION of the library */
ETL_API etl_status etl_open(const char *bundle, const etl_options *options, etl_model **model);
ETL_API etl_status etl_self_test(etl_model *model, etl_check *check /* may be NULL */);
ETL_API etl_status etl_run_file(etl_model *model, const char *path, etl_answers *answers);
ETL_API etl_status etl_run_encoded(etl_model *model, const void *jpeg_or_png, size_t bytes, etl_answers *answers);
ETL_API etl_status etl_run_rgb(etl_model *model, const uint8_t *rgb, int32_t width, int32_t height, size_t stride,
                               etl_answers *answers);
ETL_API etl_status etl_run_tensor(etl_model *model, const etl_tensor *inputs, size_t count, etl_answers *answers);

/* The network's picture, uint8 (height, width, channels), of a file's bytes; capacity in bytes. */
ETL_API etl_status etl_preprocess(etl_model *model, const void *jpeg_or_png, size_t bytes, uint8_t *input,
                                  size_t capacity);
/* Output `index` of the last run, if that did not fail; *count: how many numbers it has, also where capacity is too
 * small or values NULL. */
ETL_API etl_status etl_outputs(etl_model *model, int32_t index, float *values, size_t capacity, size_t *count);

ETL_API etl_status etl_describe(const etl_model *model, etl_info *info);
ETL_API const char *etl_task(const etl_model *model, int32_t index);   /* "" where there is one; NULL beyond the last */
ETL_API const char *etl_label(const etl_model *model, int32_t task, int32_t index);
ETL_API const char *etl_output(const etl_model *model, int32_t index); /* its name */
ETL_API const char *etl_error(const etl_model *model); /* of the last failure; NULL: of this thread's last etl_open */
ETL_API void etl_last_timing(const etl_model *model, etl_timing *timing);
ETL_API void etl_close(etl_model *model); /* NULL is allowed */

#ifdef __cplusplus
}
#endif
#endif
