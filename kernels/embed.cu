// Owns: embeddings and the dose response on the device: sums over cells of rows picked by number. Who sums walks all cells and takes its
// own, in an order that the shapes alone decide; never a scatter.
#include "pick.h"

// Of a block: columns, and rows or shares of a sum.
enum { COLS = 32, LANES = CPA_THREADS / COLS };

static inline int tiles_of(int cols)
{
    return (cols + COLS - 1) / COLS;
}

// What the sigmoid's weight multiplies.
CPA_DEVICE double dose_input(double dose, cpa_doser kind)
{
    return kind == CPA_DOSER_LOGSIGM ? log1p(dose) : dose;
}

CPA_KERNEL doser(int64_t n, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c, cpa_doser kind)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(s, i), m = cpa_col_of(s, i), p = cpa_ints(ids)[i];
    const double d = (double)cpa_row(dose, b)[m], wp = (double)cpa_reals(w.data)[p], cp = (double)cpa_reals(c.data)[p];
    const double response = kind == CPA_DOSER_LINEAR ? d : cpa_sigmoid(wp * dose_input(d, kind) + cp) - cpa_sigmoid(cp);
    cpa_row(s, b)[m] = p == 0 ? 0 : (cpa_real)response;
}

cpa_status cpa_cuda_doser(cpa_backend *be, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c,
                          cpa_doser kind)
{
    return CPA_LAUNCH(be, doser, cpa_elements(s), s, ids, dose, w, c, kind);
}

CPA_DEVICE double sigmoid_slope(double x)
{
    const double s = cpa_sigmoid(x);
    return s * (1 - s);
}

// What a call looks at, and the doses that a block takes; with more than one block for a perturbation their sums go to part
// [chunks, P, 2].
typedef struct doser_call {
    cpa_mat dw, dc, ds, dose, w, c;
    const cpa_dev_int *ids;
    double *part;
    int64_t n;
    int chunks;
} doser_call;

enum { DOSES = 4096 };

CPA_DEVICE void put_doser_grad(doser_call c, int p, double dw, double dc)
{
    cpa_reals(c.dw.data)[p] = (cpa_real)dw;
    cpa_reals(c.dc.data)[p] = (cpa_real)dc;
}

// A block for a perturbation and a chunk of the doses. Nothing comes from padding, nor of a dose that no parameter changes.
CPA_KERNEL doser_grad(doser_call c, cpa_doser kind)
{
    CPA_SHARED(double, sum_w, CPA_THREADS);
    CPA_SHARED(double, sum_c, CPA_THREADS);
    const int p = (int)(cpa_block() / c.chunks), chunk = (int)(cpa_block() % c.chunks);
    const int64_t from = (int64_t)chunk * DOSES, end = from + DOSES < c.n ? from + DOSES : c.n;
    const double wp = (double)cpa_reals(c.w.data)[p], cp = (double)cpa_reals(c.c.data)[p];
    const double at_rest = sigmoid_slope(cp);
    CPA_EACH(t)
    {
        double sw = 0, sc = 0;
        for (int64_t i = from + t; p > 0 && kind != CPA_DOSER_LINEAR && i < end; i += CPA_THREADS) {
            if (cpa_ints(c.ids)[i] == p) {
                const int b = cpa_row_of(c.ds, i), m = cpa_col_of(c.ds, i);
                const double x = dose_input((double)cpa_row(c.dose, b)[m], kind), up = (double)cpa_row(c.ds, b)[m];
                const double slope = sigmoid_slope(wp * x + cp);
                sw += up * slope * x;
                sc += up * (slope - at_rest);
            }
        }
        sum_w[t] = sw;
        sum_c[t] = sc;
    }
    cpa_block_sum(sum_w);
    cpa_block_sum(sum_c);
    CPA_EACH(t)
    {
        if (t == 0 && c.chunks == 1) {
            put_doser_grad(c, p, sum_w[0], sum_c[0]);
        } else if (t == 0) {
            double *part = c.part + 2 * ((int64_t)chunk * c.w.cols + p);
            part[0] = sum_w[0];
            part[1] = sum_c[0];
        }
    }
}

CPA_KERNEL doser_grad_total(int64_t n, doser_call c)
{
    const int64_t p = cpa_thread();
    if (p < n) {
        double sum_w = 0, sum_c = 0;
        for (int i = 0; i < c.chunks; i++) {
            sum_w += c.part[2 * (i * n + p)];
            sum_c += c.part[2 * (i * n + p) + 1];
        }
        put_doser_grad(c, (int)p, sum_w, sum_c);
    }
}

cpa_status cpa_cuda_doser_grad(cpa_backend *be, cpa_mat dw, cpa_mat dc, cpa_mat ds, const cpa_dev_int *ids,
                               cpa_mat dose, cpa_mat w, cpa_mat c, cpa_doser kind)
{
    const int64_t n = cpa_elements(ds);
    doser_call call = {dw, dc, ds, dose, w, c, ids, NULL, n, n > DOSES ? (int)((n + DOSES - 1) / DOSES) : 1};
    if (call.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, (size_t)call.chunks * (size_t)w.cols * 2 * sizeof *call.part, &call.part));
    }
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, doser_grad, (int64_t)w.cols * call.chunks, 0, call, kind));
    return call.chunks > 1 ? CPA_LAUNCH(be, doser_grad_total, (int64_t)w.cols, call) : CPA_OK;
}

// ---- bags ----

CPA_DEVICE void add_bag(cpa_mat z, cpa_mat e, const int *id, int m_per_row, cpa_mat weight, int first, int b, int l)
{
    cpa_real sum = cpa_row(z, b)[l];
    for (int m = 0; m < m_per_row; m++) {
        const int p = id[m];
        if (p >= first) {
            sum += cpa_or(weight, b, m, 1) * cpa_row(e, p)[l];
        }
    }
    cpa_row(z, b)[l] = sum;
}

// A block for COLS columns of LANES cells.
CPA_KERNEL bag_add(cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first, int tiles)
{
    CPA_EACH(t)
    {
        const int b = (int)(cpa_block() / tiles) * LANES + t / COLS, l = (int)(cpa_block() % tiles) * COLS + t % COLS;
        if (b < z.rows && l < z.cols) {
            add_bag(z, e, cpa_ints(ids) + (int64_t)b * m_per_row, m_per_row, weight, first, b, l);
        }
    }
}

cpa_status cpa_cuda_bag_add(cpa_backend *be, cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row,
                            cpa_mat weight, int first)
{
    const int tiles = tiles_of(z.cols);
    const int64_t blocks = ((int64_t)z.rows + LANES - 1) / LANES * tiles;
    return CPA_LAUNCH_BLOCKS(be, bag_add, blocks, 0, z, e, ids, m_per_row, weight, first, tiles);
}

// What a call looks at, and how it is cut: chunks of `chunk` ids, tiles of COLS columns. With more than one chunk their sums go to part
// [chunks, P, L]. `blocks` make dE, those beyond them dweight.
typedef struct bag_call {
    cpa_mat de, dweight, dz, e, weight;
    const cpa_dev_int *ids;
    double *part;
    int64_t n, blocks;
    int m_per_row, first, chunk, chunks, tiles;
} bag_call;

// What the cells of a lane's list give to column l.
CPA_DEVICE double add_listed(bag_call c, int64_t from, const uint16_t *list, int n, int l)
{
    double sum = 0;
    for (int k = 0; k < n; k++) {
        const int i = (int)from + list[k], b = i / c.m_per_row;
        sum += (double)(cpa_or(c.weight, b, i % c.m_per_row, 1) * cpa_row(c.dz, b)[l]);
    }
    return sum;
}

// A block for a row of E, a tile of its columns and a chunk of the ids. Each lane lists the cells that it finds, then adds them up.
CPA_DEVICE void sum_rows(bag_call c, int64_t block)
{
    CPA_PICKED(cells, c.chunk);
    CPA_SHARED(double, v, CPA_THREADS);
    const int tile = (int)(block % c.tiles), p = (int)(block / c.tiles % c.de.rows);
    const int chunk = (int)(block / c.tiles / c.de.rows);
    const int64_t from = (int64_t)chunk * c.chunk, left = p >= c.first ? c.n - from : 0;
    cpa_pick(cells, cpa_ints(c.ids) + from, (int)(left < c.chunk ? left : c.chunk), p);
    CPA_EACH(t)
    {
        const int lane = t / COLS, l = tile * COLS + t % COLS;
        v[t] = l < c.de.cols ? add_listed(c, from, cells.at + lane * cells.each, cells.n[lane], l) : 0;
    }
    CPA_EACH(t)
    {
        const int l = tile * COLS + t;
        if (t >= COLS || l >= c.de.cols) {
            continue;
        }
        double sum = 0;
        for (int lane = 0; lane < LANES; lane++) {
            sum += v[lane * COLS + t];
        }
        if (c.chunks == 1) {
            cpa_row(c.de, p)[l] = (cpa_real)sum;
        } else {
            c.part[((int64_t)chunk * c.de.rows + p) * c.de.cols + l] = sum;
        }
    }
}

// A block for LANES weights.
CPA_DEVICE void weight_grad(bag_call c, int64_t block)
{
    CPA_SHARED(double, v, CPA_THREADS);
    CPA_EACH(t)
    {
        const int64_t i = block * LANES + t / COLS;
        const int p = i < c.n ? cpa_ints(c.ids)[i] : -1;
        double sum = 0;
        for (int l = t % COLS; p >= c.first && l < c.dz.cols; l += COLS) {
            sum += (double)cpa_row(c.dz, cpa_row_of(c.dweight, i))[l] * (double)cpa_row(c.e, p)[l];
        }
        v[t] = sum;
    }
    CPA_EACH(t)
    {
        const int64_t i = block * LANES + t / COLS;
        if (t % COLS == 0 && i < c.n) {
            double sum = 0;
            for (int j = 0; j < COLS; j++) {
                sum += v[t + j];
            }
            cpa_row(c.dweight, cpa_row_of(c.dweight, i))[cpa_col_of(c.dweight, i)] = (cpa_real)sum;
        }
    }
}

CPA_KERNEL bag_grad(bag_call c)
{
    if (cpa_block() < c.blocks) {
        sum_rows(c, cpa_block());
    } else {
        weight_grad(c, cpa_block() - c.blocks);
    }
}

CPA_KERNEL bag_grad_total(int64_t n, bag_call c)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        double sum = 0;
        for (int chunk = 0; chunk < c.chunks; chunk++) {
            sum += c.part[chunk * n + i];
        }
        cpa_row(c.de, cpa_row_of(c.de, i))[cpa_col_of(c.de, i)] = (cpa_real)sum;
    }
}

// Few rows of E are given more chunks, so that a thousand blocks have work.
static void cut_bag(bag_call *c)
{
    const int64_t rows = (int64_t)c->tiles * c->de.rows;
    c->chunk = CPA_THREADS;
    while (c->chunk < CPA_PICK_MOST && rows * ((c->n + c->chunk - 1) / c->chunk) > 1024) {
        c->chunk *= 2;
    }
    c->chunks = c->n > c->chunk ? (int)((c->n + c->chunk - 1) / c->chunk) : 1;
    c->blocks = rows * c->chunks;
}

cpa_status cpa_cuda_bag_grad(cpa_backend *be, cpa_mat de, cpa_mat dweight, cpa_mat dz, cpa_mat e,
                             const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first)
{
    bag_call c = {de, dweight, dz, e, weight, ids, NULL, (int64_t)dz.rows * m_per_row, 0, m_per_row, first, 0, 0, 0};
    const int64_t weights = dweight.data != NULL ? (c.n + LANES - 1) / LANES : 0;
    c.tiles = tiles_of(de.cols);
    cut_bag(&c);
    if (c.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, (size_t)c.chunks * (size_t)cpa_elements(de) * sizeof *c.part, &c.part));
    }
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, bag_grad, c.blocks + weights, 0, c));
    return c.chunks > 1 ? CPA_LAUNCH(be, bag_grad_total, cpa_elements(de), c) : CPA_OK;
}
