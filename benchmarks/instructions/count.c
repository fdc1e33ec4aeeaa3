/* Counts the guest instructions that qemu-user executes: a TCG plugin, for the emulator and not for the guest.
 *
 *     gcc -shared -fPIC -O2 -o count.so count.c
 *     qemu-aarch64 -plugin ./count.so,out=FILE …
 *
 * The guest marks a point by calling getpriority(2), which nothing else does on its way through an inference; each call
 * writes a line to FILE: instructions so far of all threads, and how many of these were integer dot or matrix products
 * (sdot, udot, smmla, …), widening integer multiplications (smull, smlal, umlal, …), floating-point multiplications and
 * fused multiply-adds of vectors or scalars (fmul, fmla, fmadd, …).
 *
 * The declarations below are the part of QEMU's plugin interface that is used, so that no QEMU source is needed.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1
#endif
#define EXPORT __attribute__((visibility("default")))
#define GETPRIORITY 141 /* on aarch64 */
#define THREADS 64

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id,
                                          void (*)(plugin_id, unsigned int, int64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
#if PLUGIN_VERSION >= 3
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#else
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#endif
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

enum { ALL, DOT, WIDENING, FLOAT, KINDS };
/* Encodings of A64 in the Arm Architecture Reference Manual; fields that do not matter are masked out. */
static const struct { uint32_t mask, value; int kind; } encodings[] = {
    {0x9fe0fc00, 0x0e809400, DOT},      /* sdot, udot */
    {0x9fc0f400, 0x0f80e000, DOT},      /* sdot, udot by element */
    {0xbfe0fc00, 0x0e809c00, DOT},      /* usdot */
    {0xbf40f400, 0x0f00f000, DOT},      /* sudot, usdot by element */
    {0xdfe0f400, 0x4e80a400, DOT},      /* smmla, ummla, usmmla */
    {0x9f20fc00, 0x0e208000, WIDENING}, /* smlal, umlal */
    {0x9f20fc00, 0x0e20a000, WIDENING}, /* smlsl, umlsl */
    {0x9f20fc00, 0x0e20c000, WIDENING}, /* smull, umull */
    {0x9f00f400, 0x0f002000, WIDENING}, /* smlal, umlal by element */
    {0x9f00f400, 0x0f006000, WIDENING}, /* smlsl, umlsl by element */
    {0x9f00f400, 0x0f00a000, WIDENING}, /* smull, umull by element */
    {0xbf20fc00, 0x0e20cc00, FLOAT},    /* fmla, fmls */
    {0xbfa0fc00, 0x2e20dc00, FLOAT},    /* fmul */
    {0xbf80b400, 0x0f801000, FLOAT},    /* fmla, fmls by element */
    {0xbf80f400, 0x0f809000, FLOAT},    /* fmul by element */
    {0xff20fc00, 0x1e200800, FLOAT},    /* fmul of scalars */
    {0xff000000, 0x1f000000, FLOAT},    /* fmadd, fmsub, fnmadd, fnmsub */
};
/* A thread writes only its own line, so no counter needs a lock. */
static struct { uint64_t of[KINDS]; char padding[32]; } counts[THREADS];
static FILE *out;

static int kind(const struct qemu_plugin_insn *instruction)
{
    uint32_t word;
#if PLUGIN_VERSION >= 3
    qemu_plugin_insn_data(instruction, &word, sizeof word);
#else
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
#endif
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++)
        if ((word & encodings[i].mask) == encodings[i].value)
            return encodings[i].kind;
    return ALL;
}

static void executed(unsigned int thread, void *block)
{
    const uint64_t *of = block;
    for (int i = 0; i < KINDS; i++)
        counts[thread % THREADS].of[i] += of[i];
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    uint64_t *of = calloc(KINDS, sizeof *of);
    size_t length = qemu_plugin_tb_n_insns(tb);
    of[ALL] = length;
    for (size_t i = 0; i < length; i++) {
        int found = kind(qemu_plugin_tb_get_insn(tb, i));
        if (found != ALL)
            of[found]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, of);
}

static void called(plugin_id id, unsigned int thread, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if (number != GETPRIORITY)
        return;
    for (int i = 0; i < KINDS; i++) {
        uint64_t sum = 0;
        for (int t = 0; t < THREADS; t++)
            sum += counts[t].of[i];
        fprintf(out, "%" PRIu64 "%c", sum, i + 1 < KINDS ? ' ' : '\n');
    }
    fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w")))
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
