/* Memory and queues. A queue works when somebody waits for it, and not before: what reads too early, reads old data. */
#include "driver.h"

static block *find(uint64_t at, size_t size, int pinned) {
    for (block *b = blocks; b; b = b->next)
        if (b->pinned == pinned && at >= b->at && at < b->at + b->size)
            return at + size <= b->at + b->size && !b->freed ? b : NULL;
    return NULL;
}
static int is_pinned(uint64_t at) {
    for (block *b = blocks; b; b = b->next)
        if (b->pinned && at >= b->at && at < b->at + b->size) return 1;
    return 0;
}

static int allocated(size_t size, int pinned, uint64_t *at) {
    static uint64_t next = 0x500000000000;
    if (!size) return INVALID_VALUE;
    block *made = calloc(1, sizeof *made);
    *made = (block){.size = size, .pinned = pinned, .of = current()};
    made->bytes = aligned_alloc(512, (size + 511) / 512 * 512);
    memset(made->bytes, 0xA5, size);
    pthread_mutex_lock(&lock);
    made->at = pinned ? (uint64_t)(uintptr_t)made->bytes : next;
    next += (size + 1023) / 512 * 512;
    made->next = blocks;
    blocks = made;
    *at = made->at;
    pthread_mutex_unlock(&lock);
    add(pinned ? "page-locked" : "allocated", 1);
    return OK;
}
static int uses(const op *one, const block *b) {
    uint64_t host = (uint64_t)(uintptr_t)(one->to ? one->to : one->from);
    uint64_t at = b->pinned ? host : one->device;
    return at >= b->at && at < b->at + b->size;
}
static int freed(uint64_t at, int pinned) {
    pthread_mutex_lock(&lock);
    block *b = find(at, 1, pinned);
    int fine = b && b->at == at;
    if (fine) {
        for (stream *s = streams; s; s = s->next)
            for (op *one = s->first; one; one = one->next)
                if (uses(one, b)) fake_fault("memory was freed while a copy of it was waiting");
        b->freed = 1;
        memset(b->bytes, 0xDD, b->size); /* page-locked memory stays mapped: reading it shows */
    }
    pthread_mutex_unlock(&lock);
    if (!fine) return INVALID_VALUE;
    add(pinned ? "page-locked" : "allocated", -1);
    return OK;
}
EXPORT int cuMemAlloc_v2(uint64_t *at, size_t size) { ENTER(1); return allocated(size, 0, at); }
EXPORT int cuMemFree_v2(uint64_t at) { ENTER(1); return freed(at, 0); }
EXPORT int cuMemHostAlloc(void **at, size_t size, unsigned flags) {
    ENTER(1);
    return flags > 7 ? INVALID_VALUE : allocated(size, 1, (uint64_t *)at);
}
EXPORT int cuMemFreeHost(void *at) { ENTER(1); return freed((uint64_t)(uintptr_t)at, 1); }

/* What a kernel reads and writes. */
static int moved(uint64_t at, char *host, size_t size, int writes) {
    pthread_mutex_lock(&lock);
    block *b = find(at, size, 0);
    if (b && writes) memcpy(b->bytes + (at - b->at), host, size);
    if (b && !writes) memcpy(host, b->bytes + (at - b->at), size);
    pthread_mutex_unlock(&lock);
    if (!b) fake_fault("a kernel %s %zu bytes out of bounds", writes ? "wrote" : "read", size);
    return b ? OK : ILLEGAL_ADDRESS;
}
EXPORT int fake_read(uint64_t at, void *host, size_t size) { return moved(at, host, size, 0); }
EXPORT int fake_write(uint64_t at, void *host, size_t size) { return moved(at, host, size, 1); }

EXPORT int cuStreamCreate(stream **made, unsigned flags) {
    ENTER(1);
    if (flags > 1) return INVALID_VALUE;
    stream *s = calloc(1, sizeof *s);
    s->alive = 1;
    s->of = current();
    pthread_mutex_lock(&lock);
    s->next = streams;
    streams = *made = s;
    pthread_mutex_unlock(&lock);
    if (!flags) add("blocking streams", 1);
    add("streams", 1);
    return OK;
}
static int known(stream *given) {
    pthread_mutex_lock(&lock);
    stream *s = streams;
    while (s && s != given) s = s->next;
    pthread_mutex_unlock(&lock);
    return s && s->alive;
}
static int run(op *one) {
    if (one->work) return one->work(one->data);
    pthread_mutex_lock(&lock);
    block *there = find(one->device, one->size, 0);
    int fine = there != NULL;
    char *host = one->to ? one->to : one->from;
    if (!one->staged && !find((uint64_t)(uintptr_t)host, one->size, 1) && is_pinned((uint64_t)(uintptr_t)host)) {
        fake_fault("a copy of %zu bytes went beyond page-locked memory, or to memory that was freed", one->size);
        fine = 0;
    }
    if (fine && one->to) memcpy(one->to, there->bytes + (one->device - there->at), one->size);
    else if (fine) memcpy(there->bytes + (one->device - there->at), one->staged ? one->staged : one->from, one->size);
    pthread_mutex_unlock(&lock);
    return fine ? OK : ILLEGAL_ADDRESS;
}
static int drained(stream *s) {
    for (;;) {
        pthread_mutex_lock(&lock);
        op *one = s->first;
        pthread_mutex_unlock(&lock);
        if (!one) return s->of->broken;
        int failed = s->of->broken ? 0 : run(one);
        pthread_mutex_lock(&lock);
        if (failed) s->of->broken = ILLEGAL_ADDRESS;
        s->first = one->next;
        if (!s->first) s->last = NULL;
        pthread_mutex_unlock(&lock);
        free(one->staged);
        free(one);
    }
}
static int queued(stream *s, op content) {
    if (!known(s)) return INVALID_HANDLE;
    op *made = malloc(sizeof *made);
    *made = content;
    pthread_mutex_lock(&lock);
    if (s->last) s->last->next = made;
    else s->first = made;
    s->last = made;
    pthread_mutex_unlock(&lock);
    return OK;
}
EXPORT int fake_enqueue(stream *s, callback work, void *data) {
    ENTER(1);
    add("launches", 1);
    return queued(s, (op){.work = work, .data = data});
}
EXPORT int cuStreamSynchronize(stream *s) { ENTER(1); return known(s) ? drained(s) : INVALID_HANDLE; }
EXPORT int cuStreamDestroy_v2(stream *s) {
    int refused = entered(__func__, 1);
    if (refused && refused != ILLEGAL_ADDRESS) return refused;
    if (!known(s)) return INVALID_HANDLE;
    drained(s);
    s->alive = 0;
    add("streams", -1);
    return refused;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, char *from, size_t size, stream *s) {
    ENTER(1);
    if (!find(to, size, 0)) return INVALID_VALUE;
    char *staged = NULL;
    if (!is_pinned((uint64_t)(uintptr_t)from)) {
        add("pageable copies", 1);
        memcpy(staged = malloc(size), from, size);
    }
    return queued(s, (op){.from = from, .staged = staged, .device = to, .size = size});
}
EXPORT int cuMemcpyDtoHAsync_v2(char *to, uint64_t from, size_t size, stream *s) {
    ENTER(1);
    if (!find(from, size, 0)) return INVALID_VALUE;
    int failed = queued(s, (op){.to = to, .device = from, .size = size});
    if (failed || is_pinned((uint64_t)(uintptr_t)to)) return failed;
    add("pageable copies", 1);
    return drained(s);
}
