/* What driver.c (contexts and threads) and memory.c (memory and streams) share. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE = 100, INVALID_DEVICE = 101,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, ILLEGAL_ADDRESS = 700, CONTEXT_IS_DESTROYED = 709 };
#define EXPORT __attribute__((visibility("default")))
#define DEPTH 16

typedef struct context { int retains, broken; } context;
typedef struct block {
    uint64_t at;
    size_t size;
    char *bytes;
    int pinned, freed;
    context *of;
    struct block *next;
} block;
typedef int (*callback)(void *);
typedef struct op {
    char *to, *from, *staged;
    uint64_t device;
    size_t size;
    callback work;
    void *data;
    struct op *next;
} op;
typedef struct stream { op *first, *last; int alive; context *of; struct stream *next; } stream;
typedef struct counter { char name[40]; long count, fails_at; struct counter *next; } counter;

extern pthread_mutex_t lock;
extern block *blocks;
extern stream *streams;

void add(const char *name, long n);
void fake_fault(const char *format, ...);
int entered(const char *name, int needs_context);
context *current(void);
#define ENTER(needs) int refused = entered(__func__, needs); if (refused) return refused
