// Owns: compact rows in the making. Any thread may work on rows of its own; allocates nothing.
#include "cpa/data/rows.h"

#include <float.h>
#include <math.h>
#include <string.h>

// Comparisons that may raise a flag nobody looks at keep loops from being vectorised.
#pragma GCC optimize("no-trapping-math")

void cpa_row_stats_add(cpa_row_stats *a, const cpa_row_stats *b)
{
    a->n_empty += b->n_empty;
    a->n_non_integer += b->n_non_integer;
    a->n_duplicate += b->n_duplicate;
    a->n_read += b->n_read;
    a->max_count = b->max_count > a->max_count ? b->max_count : a->max_count;
    a->totals += b->totals;
    a->wide |= b->wide;
}

void cpa_row_stats_total(cpa_row_stats *a, int64_t cell, double sum)
{
    a->totals += cpa_hash(cpa_hash(CPA_HASH_START, &cell, sizeof cell), &sum, sizeof sum);
}

void cpa_row_stats_entries(cpa_row_stats *a, int64_t cell, uint32_t entries)
{
    a->totals += cpa_hash(cpa_hash(CPA_HASH_START, &entries, sizeof entries), &cell, sizeof cell);
}

// One body each for floats and doubles. put_short: stores counts v[n] in 16 bits, in one pass; false when one of them is no whole number
// that fits, and then nothing there is of use. put: stores counts, and judges those that are not of that plain kind; -1 or the first bad one.
#define PUT_COUNTS(type, truncated)                                                                                    \
    static bool put_short_##type##s(uint16_t *restrict to, int64_t n, const type *restrict v)                          \
    {                                                                                                                  \
        int odd = 0;                                                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            int count = (int)(v[i] >= 0 && v[i] <= UINT16_MAX ? v[i] : 0);                                             \
            odd |= (type)count != v[i];                                                                                \
            to[i] = (uint16_t)count;                                                                                   \
        }                                                                                                              \
        return !odd;                                                                                                   \
    }                                                                                                                  \
    static int64_t put_##type##s(const cpa_rows *rows, int64_t at, int64_t n, const type *restrict v,                  \
                                 cpa_row_stats *stats)                                                                 \
    {                                                                                                                  \
        int bad = 0, broken = 0, wide = 0;                                                                             \
        if (rows->count16 != NULL && put_short_##type##s(rows->count16 + at, n, v)) {                                  \
            return -1;                                                                                                 \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            int whole = v[i] == truncated(v[i]);                                                                       \
            bad |= !(v[i] >= 0 && v[i] <= (type)FLT_MAX);                                                              \
            broken += !whole;                                                                                          \
            wide |= !whole | (v[i] > UINT16_MAX);                                                                      \
        }                                                                                                              \
        for (int64_t i = 0; bad && i < n; i++) {                                                                       \
            if (!(v[i] >= 0 && v[i] <= (type)FLT_MAX)) {                                                               \
                return i;                                                                                              \
            }                                                                                                          \
        }                                                                                                              \
        stats->n_non_integer += broken;                                                                                \
        stats->wide |= wide != 0;                                                                                      \
        for (int64_t i = 0; rows->count16 == NULL && i < n; i++) {                                                     \
            rows->count32[at + i] = (float)v[i];                                                                       \
        }                                                                                                              \
        return -1;                                                                                                     \
    }

PUT_COUNTS(float, truncf)
PUT_COUNTS(double, trunc)

int64_t cpa_rows_put_counts(const cpa_rows *rows, int64_t at, int64_t n, const double *doubles, const float *floats,
                            cpa_row_stats *stats)
{
    return floats != NULL ? put_floats(rows, at, n, floats, stats) : put_doubles(rows, at, n, doubles, stats);
}

static void put_count(const cpa_rows *rows, int64_t p, double count)
{
    if (rows->count16 != NULL) {
        rows->count16[p] = (uint16_t)count;
    } else {
        rows->count32[p] = (float)count;
    }
}

// Sorts keys by their upper 32 bits (values below 256^n_bytes), stable, a byte at a time.
static void sort_keys(uint64_t *key, uint64_t *spare, int64_t n, int n_bytes)
{
    for (int byte = 0; byte < n_bytes; byte++) {
        int shift = 32 + 8 * byte;
        int64_t start[257] = {0};
        for (int64_t i = 0; i < n; i++) {
            start[((key[i] >> shift) & 255) + 1]++;
        }
        for (int i = 0; i < 256; i++) {
            start[i + 1] += start[i];
        }
        for (int64_t i = 0; i < n; i++) {
            spare[start[(key[i] >> shift) & 255]++] = key[i];
        }
        memcpy(key, spare, (size_t)n * sizeof *key);
    }
}

static void sort_row(const cpa_rows *rows, int64_t begin, int64_t n, uint64_t *key)
{
    for (int64_t i = 0; i < n; i++) {
        float count = (float)cpa_rows_count(rows, begin + i); // exact: it is stored as a float or in 16 bits
        uint32_t bits;
        memcpy(&bits, &count, sizeof bits);
        key[i] = (uint64_t)cpa_rows_gene(rows, begin + i) << 32 | bits;
    }
    sort_keys(key, key + n, n, rows->gene16 != NULL ? 2 : 4);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)key[i];
        float count;
        memcpy(&count, &bits, sizeof count);
        cpa_rows_put_gene(rows, begin + i, (uint32_t)(key[i] >> 32));
        put_count(rows, begin + i, (double)count);
    }
}

// Adds entries of one gene up into the first of them; genes ascend. -1, or the gene whose sum is too large.
static int64_t merge_row(const cpa_rows *rows, int64_t begin, int64_t end, cpa_row_stats *stats)
{
    int64_t head = begin;
    for (int64_t p = begin + 1; p < end; p++) {
        if (cpa_rows_gene(rows, p) != cpa_rows_gene(rows, head)) {
            head = p;
            continue;
        }
        double sum = cpa_rows_count(rows, head) + cpa_rows_count(rows, p);
        stats->wide |= sum > UINT16_MAX;
        if (rows->count16 != NULL && sum > UINT16_MAX) {
            return -1;
        }
        if (sum > FLT_MAX) {
            return cpa_rows_gene(rows, head);
        }
        put_count(rows, head, sum);
        put_count(rows, p, 0);
        stats->n_duplicate++;
    }
    return -1;
}

static bool is_ascending(const cpa_rows *rows, int64_t begin, int64_t end)
{
    uint16_t falls = 0; // no wider than the genes, or half of every vector is padding
    if (rows->gene16 != NULL) {
        for (int64_t p = begin + 1; p < end; p++) {
            falls |= (uint16_t)(rows->gene16[p - 1] >= rows->gene16[p]);
        }
    } else {
        for (int64_t p = begin + 1; p < end; p++) {
            falls |= (uint16_t)(rows->gene32[p - 1] >= rows->gene32[p]);
        }
    }
    return !falls;
}

// Sum and largest count of a row, the sum from the first to the last.
static double sum_row(const cpa_rows *rows, int64_t begin, int64_t end, double *largest)
{
    if (rows->count16 != NULL) {
        uint64_t sum = 0;
        uint16_t most = 0;
        for (int64_t p = begin, until; p < end; p = until) {
            uint32_t part = 0; // of as many as it can hold
            until = end - p < UINT16_MAX ? end : p + UINT16_MAX;
            for (int64_t k = p; k < until; k++) {
                part += rows->count16[k];
                most = rows->count16[k] > most ? rows->count16[k] : most;
            }
            sum += part;
        }
        *largest = most;
        return (double)sum;
    }
    double sum = 0;
    float most = 0;
    for (int64_t p = begin; p < end; p++) {
        sum += (double)rows->count32[p];
        most = rows->count32[p] > most ? rows->count32[p] : most;
    }
    *largest = (double)most;
    return sum;
}

// Moves the values that are used to the beginning of a row; the end of them.
static int64_t drop_unused(const cpa_rows *rows, int64_t begin, int64_t end)
{
    int64_t to = begin;
    for (int64_t p = begin; p < end; p++) {
        if (!cpa_rows_is_dropped(rows, p)) {
            double count = cpa_rows_count(rows, p);
            cpa_rows_put_gene(rows, to, cpa_rows_gene(rows, p));
            put_count(rows, to++, count);
        }
    }
    return to;
}

static void note_genes(const cpa_rows *rows, int64_t begin, int64_t end)
{
    const cpa_rows r = *rows; // stores to bytes could change it, the compiler must think
    for (int64_t p = begin; p < end; p++) {
        uint32_t gene = cpa_rows_gene(&r, p);
        if (!cpa_rows_is_noted(&r, gene) && cpa_rows_count(&r, p) > 0) {
            cpa_rows_note_gene(&r, gene);
        }
    }
}

static uint32_t digest_row(const cpa_rows *rows, int64_t begin, int64_t end)
{
    uint32_t digest = 0;
    if (rows->gene16 != NULL && rows->count16 != NULL) {
        const uint16_t *restrict gene = rows->gene16, *restrict count = rows->count16;
        for (int64_t p = begin; p < end; p++) {
            digest += cpa_entry_digest(gene[p], (float)count[p]);
        }
        return digest;
    }
    for (int64_t p = begin; p < end; p++) {
        digest += cpa_entry_digest((uint32_t)cpa_rows_gene(rows, p), (float)cpa_rows_count(rows, p));
    }
    return digest;
}

// What the values [begin, end) of row i come to; genes ascend.
static void take_stock(const cpa_rows *rows, int64_t i, int64_t begin, int64_t end, cpa_row_stats *stats)
{
    double largest;
    if (rows->counted != NULL) {
        note_genes(rows, begin, end);
        cpa_row_stats_entries(stats, rows->first + i, digest_row(rows, begin, end));
    }
    rows->library[i] = sum_row(rows, begin, end, &largest);
    stats->max_count = largest > stats->max_count ? largest : stats->max_count;
    stats->n_empty += rows->library[i] <= 0;
}

bool cpa_rows_ascend(const cpa_rows *rows, int64_t i)
{
    return is_ascending(rows, rows->indptr[i], rows->indptr[i + 1]);
}

void cpa_rows_sum(const cpa_rows *rows, int64_t i, cpa_row_stats *stats)
{
    take_stock(rows, i, rows->indptr[i], rows->indptr[i + 1], stats);
}

int64_t cpa_rows_finish(const cpa_rows *rows, int64_t i, uint64_t *room, cpa_row_stats *stats)
{
    int64_t begin = rows->indptr[i], end = rows->indptr[i + 1], too_large = -1;
    if (rows->kept != NULL) {
        end = drop_unused(rows, begin, end);
        rows->kept[i] = (int32_t)(end - begin);
    }
    if (!is_ascending(rows, begin, end)) {
        sort_row(rows, begin, end - begin, room);
        too_large = merge_row(rows, begin, end, stats);
    }
    take_stock(rows, i, begin, end, stats);
    return too_large;
}
