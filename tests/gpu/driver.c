/* libcuda.so.1 without a GPU: contexts belong to threads, memory has a size, and a queue works as late as it may.
 *
 * What CUDA refuses is refused with its own error. What CUDA lets pass, and a program must not do, is a fault: it is
 * counted, and the first one is kept in words. Device memory has addresses that no CPU may follow.
 */
#include "driver.h"

pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
block *blocks;
stream *streams;
static counter *counters;
static context *primary;
static int initialised;
static char first_fault[400];
static __thread context *stack[DEPTH];
static __thread int depth, bound;

static counter *counter_of(const char *name) {
    pthread_mutex_lock(&lock);
    counter *found = counters;
    while (found && strcmp(found->name, name)) found = found->next;
    if (!found) {
        found = calloc(1, sizeof *found);
        snprintf(found->name, sizeof found->name, "%s", name);
        found->next = counters;
        counters = found;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void add(const char *name, long n) { __atomic_add_fetch(&counter_of(name)->count, n, __ATOMIC_SEQ_CST); }

EXPORT void fake_fault(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    pthread_mutex_lock(&lock);
    if (!counter_of("faults")->count) vsnprintf(first_fault, sizeof first_fault, format, rest);
    add("faults", 1);
    pthread_mutex_unlock(&lock);
    va_end(rest);
}

static void thread_ended(void *unused) {
    (void)unused;
    if (depth > bound) fake_fault("a thread ended with a context current");
}
static void prepare(void) { pthread_key_create(&key, thread_ended); }

context *current(void) { return depth ? stack[depth - 1] : NULL; }

/* Whether this call is to fail, or why it may not be made. */
int entered(const char *name, int needs_context) {
    counter *calls = counter_of(name);
    long nth = __atomic_add_fetch(&calls->count, 1, __ATOMIC_SEQ_CST);
    if (calls->fails_at && nth >= calls->fails_at) {
        calls->fails_at = 0;
        return OUT_OF_MEMORY;
    }
    if (!initialised) return NOT_INITIALIZED;
    if (!needs_context) return OK;
    if (!depth) return INVALID_CONTEXT;
    if (!stack[depth - 1]->retains) return CONTEXT_IS_DESTROYED;
    return stack[depth - 1]->broken;
}

EXPORT long fake_count(const char *name) { return counter_of(name)->count; }
EXPORT const char *fake_first_fault(void) { return first_fault; }
EXPORT int fake_depth(void) { return depth; }
EXPORT void fake_fail(const char *name, int nth) { counter *c = counter_of(name); c->fails_at = c->count + nth; }

/* As cudart does in a thread without a context. */
EXPORT void fake_bind(void) {
    if (depth) return;
    pthread_mutex_lock(&lock);
    initialised = 1;
    if (!primary) primary = calloc(1, sizeof *primary);
    primary->retains++;
    stack[depth++] = primary;
    bound++;
    pthread_mutex_unlock(&lock);
    add("implicitly bound", 1);
}

EXPORT int cuInit(unsigned flags) {
    if (flags) return INVALID_VALUE;
    if (getenv("FAKE_GPU_ABSENT")) return NO_DEVICE;
    initialised = 1;
    pthread_once(&once, prepare);
    return OK;
}

EXPORT int cuGetErrorName(int error, const char **name) {
    switch (error) {
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return OK;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return OK;
        case NOT_INITIALIZED: *name = "CUDA_ERROR_NOT_INITIALIZED"; return OK;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; return OK;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; return OK;
        case INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; return OK;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; return OK;
        case CONTEXT_IS_DESTROYED: *name = "CUDA_ERROR_CONTEXT_IS_DESTROYED"; return OK;
        default: *name = NULL; return INVALID_VALUE;
    }
}

EXPORT int cuDeviceGetCount(int *count) { ENTER(0); *count = 1; return OK; }
EXPORT int cuDeviceGet(int *device, int index) { ENTER(0); *device = 0; return index ? INVALID_DEVICE : OK; }
EXPORT int cuDeviceGetName(char *name, int size, int device) {
    ENTER(0);
    const char *given = getenv("FAKE_GPU_NAME");
    snprintf(name, (size_t)size, "%s", given ? given : "Orin");
    return device ? INVALID_DEVICE : OK;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(0);
    const char *given = getenv("FAKE_GPU_SM");
    int sm = given ? atoi(given) : 87;
    if (device || attribute < 75 || attribute > 76) return INVALID_VALUE;
    *value = attribute == 75 ? sm / 10 : sm % 10;
    return OK;
}

EXPORT int cuDevicePrimaryCtxRetain(context **made, int device) {
    ENTER(0);
    if (device) return INVALID_DEVICE;
    pthread_mutex_lock(&lock);
    if (!primary) primary = calloc(1, sizeof *primary);
    primary->retains++;
    *made = primary;
    pthread_mutex_unlock(&lock);
    add("retained", 1);
    return OK;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER(0);
    if (device || !primary || !primary->retains) return INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    if (!--primary->retains) {
        for (block *b = blocks; b; b = b->next)
            if (b->of == primary && !b->freed) fake_fault("a context was destroyed with memory in it");
        for (stream *s = streams; s; s = s->next)
            if (s->of == primary && s->alive) fake_fault("a context was destroyed with a stream in it");
        primary = NULL; /* leaked on purpose: its handle may still be used, and must be told from the next one's */
    }
    pthread_mutex_unlock(&lock);
    add("retained", -1);
    return OK;
}

EXPORT int cuCtxPushCurrent_v2(context *given) {
    ENTER(0);
    if (!given || depth == DEPTH) return INVALID_CONTEXT;
    if (!given->retains) return CONTEXT_IS_DESTROYED;
    pthread_setspecific(key, (void *)1);
    stack[depth++] = given;
    return OK;
}
EXPORT int cuCtxPopCurrent_v2(context **popped) {
    ENTER(0);
    if (!depth) return INVALID_CONTEXT;
    *popped = stack[--depth];
    return OK;
}
EXPORT int cuCtxSetCurrent(context *given) {
    ENTER(0);
    if (given && !given->retains) return CONTEXT_IS_DESTROYED;
    depth = given ? (depth ? depth : 1) : 0;
    if (given) stack[depth - 1] = given;
    return OK;
}

/* What is left when the process ends, for whoever started it. */
__attribute__((destructor)) static void report(void) {
    const char *file = getenv("FAKE_GPU_REPORT");
    FILE *out = file ? fopen(file, "a") : NULL;
    if (!out) return;
    const char *told[] = {"allocated", "page-locked", "streams", "retained", "pageable copies", "blocking streams",
                          "implicitly bound", "cuStreamSynchronize", "launches", "faults"};
    fprintf(out, "{\"fault\": \"%s\"", first_fault);
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) fprintf(out, ", \"%s\": %ld", told[i], fake_count(told[i]));
    fprintf(out, "}\n");
    fclose(out);
}
