// Owns: how sums down columns are cut into blocks: rows in chunks, columns in tiles, the threads of a block in lanes that take every so
// many rows of a tile's columns. By the shape alone, so that a sum has the same order on every device. Must never be included outside
// kernels/.
#ifndef CPA_KERNELS_COLUMNS_H
#define CPA_KERNELS_COLUMNS_H

#include "kernel.h"

enum {
    CPA_ALONE =
        512, // up to so many rows a block reads a column twice rather than leave half of the work to a second launch
    CPA_CHUNK = 128,     // least rows of a chunk, where there are several
    CPA_MOST_CHUNKS = 64 // so that a block can add them up by itself
};

typedef struct cpa_cut {
    int rows, cols;
    int chunk, chunks; // rows of a chunk but the last, and their number
    int shift, tiles;  // 1 << shift columns a tile, and their number
} cpa_cut;

// Up to `alone` rows are one chunk, for which one launch does. Narrow tiles (a sector of memory wide) keep a thread's rows few where
// there would be too few blocks to fill a device.
static inline cpa_cut cpa_cut_of(cpa_mat m, int alone)
{
    enum { WIDE = 5, NARROW = 3, ENOUGH = 256 };
    cpa_cut c;
    c.rows = m.rows;
    c.cols = m.cols;
    c.chunk = m.rows;
    c.chunks = 1;
    if (m.rows > alone) {
        const int most = (m.rows - 1) / CPA_MOST_CHUNKS + 1, whole = (most + 31) / 32 * 32;
        c.chunk = whole > CPA_CHUNK ? whole : CPA_CHUNK;
        c.chunks = (m.rows - 1) / c.chunk + 1;
    }
    c.shift = (int64_t)c.chunks * ((m.cols + 31) >> WIDE) >= ENOUGH ? WIDE : NARROW;
    c.tiles = (m.cols + (1 << c.shift) - 1) >> c.shift;
    return c;
}

static inline int64_t cpa_cut_blocks(cpa_cut c)
{
    return (int64_t)c.chunks * c.tiles;
}

// Doubles that chunks take to leave n sums a column in, [chunks, n, cols].
static inline size_t cpa_cut_sums(cpa_cut c, int n)
{
    return (size_t)c.chunks * (size_t)n * (size_t)c.cols;
}

CPA_DEVICE int cpa_rows_of_chunk(cpa_cut c, int chunk)
{
    const int left = c.rows - chunk * c.chunk;
    return left < c.chunk ? left : c.chunk;
}

// The share of a thread: rows first, first + step, ... < end of a column. Beyond the last column it is empty.
typedef struct cpa_share {
    int col, first, end, step;
    int chunk, lane;
    int at; // the column within its tile
} cpa_share;

CPA_DEVICE cpa_share cpa_share_of(cpa_cut c, int t)
{
    const int block = (int)cpa_block();
    cpa_share s;
    s.chunk = block / c.tiles;
    s.lane = t >> c.shift;
    s.at = t & ((1 << c.shift) - 1);
    s.col = ((block - s.chunk * c.tiles) << c.shift) + s.at;
    s.step = CPA_THREADS >> c.shift;
    s.first = s.chunk * c.chunk + s.lane;
    s.end = s.col < c.cols ? s.chunk * c.chunk + cpa_rows_of_chunk(c, s.chunk) : 0;
    return s;
}

// Rows that a thread reads before it writes any of them, so that reads need not wait for one another behind writes.
enum { CPA_AT_ONCE = 4 };

// Row u of those, from row i on; the last one again where there are no more.
CPA_DEVICE int cpa_share_row(cpa_share s, int i, int u)
{
    const int row = i + u * s.step;
    return row < s.end ? row : s.end - 1;
}

// v [n, CPA_THREADS] holds n sums of each thread. Afterwards v[k * CPA_THREADS + s.at] is sum k of the column, in order of lanes.
CPA_DEVICE void cpa_add_lanes(double *v, int n, cpa_cut c)
{
    CPA_EACH(t)
    {
        if (t < n << c.shift) {
            double *to = v + (t >> c.shift) * CPA_THREADS + (t & ((1 << c.shift) - 1)), sum = 0;
            for (int lane = 0; lane < CPA_THREADS >> c.shift; lane++) {
                sum += to[lane << c.shift];
            }
            *to = sum; // nobody else's column
        }
    }
}

// Leaves the block's n sums in sums [chunks, n, cols].
CPA_DEVICE void cpa_leave_sums(double *sums, const double *v, int n, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t); // lane k leaves sum k
        if (s.lane < n && s.col < c.cols) {
            sums[((int64_t)s.chunk * n + s.lane) * c.cols + s.col] = v[s.lane * CPA_THREADS + s.at];
        }
    }
}

// The other way: v[k * CPA_THREADS + s.at] = sums[k, s.col], with sums [n, cols].
CPA_DEVICE void cpa_take_sums(double *v, const double *sums, int n, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.lane < n && s.col < c.cols) {
            v[s.lane * CPA_THREADS + s.at] = sums[(int64_t)s.lane * c.cols + s.col];
        }
    }
}

// As cpa_add_lanes, the sums being those of all chunks, sums [chunks, n, cols]. For n of 5 at most.
CPA_DEVICE void cpa_add_chunks(double *v, const double *sums, int n, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        const int end = s.col < c.cols ? c.chunks : 0;
        double sum[5] = {0, 0, 0, 0, 0};
        for (int chunk = s.lane; chunk < end; chunk += s.step) {
            for (int k = 0; k < n; k++) {
                sum[k] += sums[((int64_t)chunk * n + k) * c.cols + s.col];
            }
        }
        for (int k = 0; k < n; k++) {
            v[k * CPA_THREADS + t] = sum[k];
        }
    }
    cpa_add_lanes(v, n, c);
}

#endif
