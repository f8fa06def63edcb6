/* A plugin of qemu-user for aarch64: how often each translated block was executed, and the misses of simulated data caches.
 *
 * Arguments (after the plugin's file): out=FILE, and caches=KILOBYTES:WAYS:... of each level, first level first (none: caches
 * are not simulated, which is faster).
 *
 * The guest marks its phases by a system call that no kernel knows (it fails with EINVAL): prctl(MARKER, command).
 *   BEGIN  forgets what was counted, and empties the caches: what follows does not depend on what ran before. Until the
 *          first one nothing is looked up in the caches.
 *   END    appends what was counted since to FILE, and clears the counts; the caches keep their lines.
 * The file's layout is told in trace.py. It is opened for each phase, so that a process that was forked after the start
 * writes as well as its parent, and the file may be taken away between two phases.
 *
 * Counts are exact with one guest thread. Several threads do no harm, but interface version 1 loses increments then, and
 * they share the caches in the order in which the host happened to run them.
 */
#include "caches.h"
#include "qemu_api.h"

#include <errno.h>
#include <pthread.h>

enum { PRCTL = 167 }; /* of aarch64 */
enum { BEGIN = 0, END = 1 };
enum { BUCKETS = 1 << 18 };

static const uint64_t MARKER = 0x4f524348;       /* "ORCH" */
static const uint64_t PHASE = 0x314553414850;    /* "PHASE1" in memory */

EXPORTED int qemu_plugin_version = API;

struct block {
    uint64_t address, hash;
    uint32_t count, *words;
    struct counter executions;
    struct block *next; /* in its bucket */
};

static struct block *buckets[BUCKETS];
static struct block **blocks; /* in the order of their first translation */
static size_t known, room;
static struct caches caches;
static char *out;
static int begun; /* until then caches would be simulated in vain */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what)
{
    fprintf(stderr, "counting plugin: %s: %s\n", what, strerror(errno));
    exit(70);
}

static void *make(size_t count, size_t bytes)
{
    void *made = calloc(count, bytes);
    if (!made)
        fail("memory");
    return made;
}

static void on_access(unsigned vcpu, uint32_t info, uint64_t address, void *data)
{
    (void)vcpu, (void)info, (void)data;
    if (begun)
        caches_access(&caches, address);
}

/* Group "loads and stores" of the A64 encoding: bits 28 to 25 are x1x0. */
static int is_load_or_store(uint32_t word) { return (word >> 25 & 5) == 4; }

/* The record of a block; qemu translates the same block again when its own cache of translations is full. */
static struct block *block_of(uint64_t address, const uint32_t *words, uint32_t count)
{
    uint64_t hash = address * UINT64_C(0x9E3779B97F4A7C15); /* Fibonacci hashing, then FNV-1a's prime for each word */
    for (uint32_t k = 0; k < count; k++) {
        hash = (hash ^ words[k]) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    struct block **bucket = &buckets[hash % BUCKETS];
    for (struct block *block = *bucket; block; block = block->next)
        if (block->hash == hash && block->address == address && block->count == count &&
            !memcmp(block->words, words, count * sizeof *words))
            return block;

    struct block *block = make(1, sizeof *block);
    block->address = address;
    block->hash = hash;
    block->count = count;
    block->words = make(count, sizeof *words);
    memcpy(block->words, words, count * sizeof *words);
    counter_make(&block->executions);
    block->next = *bucket;
    *bucket = block;
    if (known == room) {
        room = room ? 2 * room : 4096;
        blocks = realloc(blocks, room * sizeof *blocks);
        if (!blocks)
            fail("memory");
    }
    return blocks[known++] = block;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint32_t count = (uint32_t)qemu_plugin_tb_n_insns(tb);
    uint32_t *words = make(count, sizeof *words);
    for (uint32_t k = 0; k < count; k++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, k);
        words[k] = instruction_word(instruction);
        if (caches.levels && is_load_or_store(words[k]))
            qemu_plugin_register_vcpu_mem_cb(instruction, on_access, NO_REGISTERS, READS_AND_WRITES, NULL);
    }
    pthread_mutex_lock(&lock);
    counter_attach(&block_of(qemu_plugin_tb_vaddr(tb), words, count)->executions, tb);
    pthread_mutex_unlock(&lock);
    free(words);
}

static void put(FILE *file, uint64_t number) { fwrite(&number, sizeof number, 1, file); }

static void put_block(FILE *file, const struct block *block, uint64_t executions)
{
    static const uint32_t filler = 0;
    put(file, block->address);
    put(file, executions);
    put(file, block->count);
    fwrite(block->words, sizeof *block->words, block->count, file);
    if (block->count % 2)
        fwrite(&filler, sizeof filler, 1, file);
}

static void write_phase(void)
{
    uint64_t *executions = make(known + 1, sizeof *executions), executed = 0;
    for (size_t k = 0; k < known; k++)
        executed += (executions[k] = counter_take(&blocks[k]->executions)) != 0;

    FILE *file = fopen(out, "ab");
    if (!file)
        fail(out);
    put(file, PHASE);
    put(file, executed);
    put(file, caches.levels);
    for (size_t k = 0; k < known; k++)
        if (executions[k])
            put_block(file, blocks[k], executions[k]);
    put(file, caches.accesses);
    for (int k = 0; k < caches.levels; k++)
        put(file, caches.misses[k]);
    caches_clear_counts(&caches);
    if (ferror(file) | fclose(file))
        fail(out);
    free(executions);
}

static void forget(void)
{
    for (size_t k = 0; k < known; k++)
        counter_take(&blocks[k]->executions);
    caches_clear_counts(&caches);
    caches_empty(&caches);
    begun = 1;
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t first, uint64_t second, uint64_t third,
                       uint64_t fourth, uint64_t fifth, uint64_t sixth, uint64_t seventh, uint64_t eighth)
{
    (void)id, (void)vcpu, (void)third, (void)fourth, (void)fifth, (void)sixth, (void)seventh, (void)eighth;
    if (number != PRCTL || first != MARKER)
        return;
    pthread_mutex_lock(&lock);
    if (second == BEGIN)
        forget();
    else if (second == END)
        write_phase();
    pthread_mutex_unlock(&lock);
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int k = 0; k < argc; k++) {
        if (!strncmp(argv[k], "out=", 4)) {
            out = strdup(argv[k] + 4);
        } else if (!strncmp(argv[k], "caches=", 7) && !caches_make(&caches, argv[k] + 7)) {
            continue;
        } else {
            fprintf(stderr, "counting plugin: cannot use the argument '%s'\n", argv[k]);
            return -1;
        }
    }
    if (!out) {
        fprintf(stderr, "counting plugin: the argument out=FILE is missing\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
