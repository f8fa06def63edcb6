/* The part of qemu's plugin interface that the counter uses, for each of its generations.
 *
 * Distributions ship qemu without its header include/qemu/qemu-plugin.h, so the declarations are written down here. API is
 * the version of the interface to compile for (-DAPI=1, 2 or 3):
 *   1  qemu 6.0 to 8.2: an inline counter is an address.
 *   2  qemu 9.0: an inline counter is a place on a scoreboard, which has a column for each virtual CPU.
 *   3  qemu 9.1 and later: qemu_plugin_insn_data copies. Versions 4 to 6 only added what is not used here.
 */
#ifndef QEMU_API_H
#define QEMU_API_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef API
#error "say which version of the plugin interface: -DAPI=1, -DAPI=2 or -DAPI=3"
#endif

#define EXPORTED __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t qemu_plugin_id_t;

enum { NO_REGISTERS = 0 };   /* qemu_plugin_cb_flags */
enum { READS_AND_WRITES = 3 }; /* qemu_plugin_mem_rw */
enum { ADD_U64 = 0 };        /* qemu_plugin_op */

typedef void (*translated_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*memory_callback)(unsigned vcpu, uint32_t info, uint64_t address, void *data);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, memory_callback, int flags, int rw, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);

#if API == 1

const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *address, uint64_t immediate);

/* How often a block was executed. */
struct counter {
    uint64_t value;
};

static inline void counter_make(struct counter *counter) { counter->value = 0; }

static inline void counter_attach(struct counter *counter, struct qemu_plugin_tb *tb)
{
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &counter->value, 1);
}

static inline uint64_t counter_take(struct counter *counter)
{
    uint64_t value = counter->value;
    counter->value = 0;
    return value;
}

#else

struct qemu_plugin_scoreboard;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_bytes);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *, int op, qemu_plugin_u64, uint64_t immediate);
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64);
void qemu_plugin_u64_set(qemu_plugin_u64, unsigned vcpu, uint64_t value);
int qemu_plugin_num_vcpus(void);

enum { COUNTERS_A_BOARD = 1024 }; /* a scoreboard for each block would cost more than the block */

struct counter {
    qemu_plugin_u64 place;
};

static inline void counter_make(struct counter *counter)
{
    static struct qemu_plugin_scoreboard *board;
    static size_t used = COUNTERS_A_BOARD;
    if (used == COUNTERS_A_BOARD) {
        board = qemu_plugin_scoreboard_new(COUNTERS_A_BOARD * sizeof(uint64_t));
        used = 0;
    }
    counter->place.score = board;
    counter->place.offset = used++ * sizeof(uint64_t);
}

static inline void counter_attach(struct counter *counter, struct qemu_plugin_tb *tb)
{
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, ADD_U64, counter->place, 1);
}

static inline uint64_t counter_take(struct counter *counter)
{
    uint64_t value = qemu_plugin_u64_sum(counter->place);
    if (value)
        for (int vcpu = 0; vcpu < qemu_plugin_num_vcpus(); vcpu++)
            qemu_plugin_u64_set(counter->place, vcpu, 0);
    return value;
}

#endif

#if API < 3
#if API == 2
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#endif
static inline uint32_t instruction_word(const struct qemu_plugin_insn *instruction)
{
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    return word;
}
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t bytes);
static inline uint32_t instruction_word(const struct qemu_plugin_insn *instruction)
{
    uint32_t word = 0;
    qemu_plugin_insn_data(instruction, &word, sizeof word);
    return word;
}
#endif

#endif
