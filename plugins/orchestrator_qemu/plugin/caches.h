/* Data caches: levels of lines of 64 bytes, the least recently used of a set goes out, a store fetches its line like a load.
 *
 * Guest addresses stand for physical ones, and nothing is prefetched: what a prefetcher saves is part of the constants that
 * turn misses into cycles. An access that spans two lines counts for its first.
 */
#ifndef CACHES_H
#define CACHES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SHIFT = 6, LEVELS_MAX = 3 };

struct cache {
    unsigned sets, ways;
    uint64_t *lines; /* for each set its lines, the most recently used first */
};

struct caches {
    int levels;
    struct cache level[LEVELS_MAX];
    uint64_t last_line;
    uint64_t accesses, misses[LEVELS_MAX];
};

/* No address has this line. */
static const uint64_t NO_LINE = ~UINT64_C(0);

static void caches_empty(struct caches *caches)
{
    caches->last_line = NO_LINE;
    for (int k = 0; k < caches->levels; k++)
        memset(caches->level[k].lines, 0xff, sizeof(uint64_t) * caches->level[k].sets * caches->level[k].ways);
}

static void caches_clear_counts(struct caches *caches)
{
    caches->accesses = 0;
    memset(caches->misses, 0, sizeof caches->misses);
}

/* Read "KILOBYTES:WAYS:KILOBYTES:WAYS..."; 0, or -1 where that is no description of caches. */
static int caches_make(struct caches *caches, const char *text)
{
    caches->levels = 0;
    while (*text) {
        unsigned kilobytes, ways;
        int used = 0;
        if (caches->levels == LEVELS_MAX || sscanf(text, "%u:%u%n", &kilobytes, &ways, &used) != 2 || ways == 0)
            return -1;
        unsigned sets = (kilobytes * 1024 >> LINE_SHIFT) / ways;
        if (sets == 0 || (sets & (sets - 1)))
            return -1; /* the set is chosen by bits of the address */
        uint64_t *lines = malloc(sizeof(uint64_t) * sets * ways);
        if (!lines)
            return -1;
        caches->level[caches->levels++] = (struct cache){.sets = sets, .ways = ways, .lines = lines};
        text += used;
        if (*text == ':')
            text++;
    }
    caches_empty(caches);
    caches_clear_counts(caches);
    return 0;
}

/* Whether the line was there; it is afterwards. */
static int cache_holds(struct cache *cache, uint64_t line)
{
    uint64_t *set = cache->lines + (size_t)(line & (cache->sets - 1)) * cache->ways;
    unsigned way = 0;
    while (way < cache->ways - 1 && set[way] != line)
        way++;
    int held = set[way] == line;
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line;
    return held;
}

static void caches_access(struct caches *caches, uint64_t address)
{
    uint64_t line = address >> LINE_SHIFT;
    caches->accesses++;
    if (line == caches->last_line)
        return; /* it is the most recently used one already */
    caches->last_line = line;
    for (int k = 0; k < caches->levels; k++) {
        if (cache_holds(&caches->level[k], line))
            return;
        caches->misses[k]++;
    }
}

#endif
