// Owns: the cells of a simulated atlas: what each one is, and its counts. Keeps no state: a cell depends on the truth and on
// its number alone.
#include <math.h>

#include "simulate_impl.h"

static const double valid_part = 0.1; // of the cells that are not held out

double cpa_sim_normal(uint32_t a, uint32_t b)
{
    const double two_pi = 6.283185307179586;
    return sqrt(-2 * log(cpa_sim_unit(a))) * cos(two_pi * cpa_sim_unit(b));
}

// Cuts the unit interval into n parts: the part that *u lies in, and *u as its place in there.
static int cut(double *u, int n)
{
    double x = *u * n;
    int k = x < n ? (int)x : n - 1;
    *u = x - k;
    return k;
}

cpa_sim_cell cpa_sim_cell_of(const cpa_truth *t, int64_t i)
{
    const cpa_simulate_config *c = t->config;
    cpa_sim_cell cell = {0};
    uint32_t w[4], v[4];
    cpa_sim_words(t, CPA_DRAW_GROUP, i, 0, w);
    cpa_sim_words(t, CPA_DRAW_CELL, i, 0, v);
    double u = ((double)(w[0] >> 5) * 0x1p26 + (double)(w[1] >> 6)) * 0x1p-53;
    if (c->order[0] == 's') {
        u = ((double)i + 0.5) / (double)c->n_cells;
    }
    cell.batch = cut(&u, c->batches);
    cell.type = cut(&u, c->cell_types);
    if (u >= c->control) {
        u = (u - c->control) / (1 - c->control);
        cell.condition = 1 + cut(&u, t->n_conditions - 1);
    }
    int64_t group = (int64_t)cell.type * t->name.n + t->condition[cell.condition].name;
    cell.split = t->held_out[group] != 0 ? CPA_SIM_OOD : cpa_sim_unit(w[2]) < valid_part ? CPA_SIM_TEST : CPA_SIM_TRAIN;
    cell.library = exp(t->library_mean + t->library_sd * cpa_sim_normal(v[0], v[1]));
    return cell;
}

cpa_status cpa_sim_room_init(cpa_sim_room *room, int32_t n_genes)
{
    cpa_status st;
    CPA_TRY(cpa_alloc((size_t)n_genes + 3, sizeof *room->mean, &room->mean));
    CPA_TRY(cpa_alloc((size_t)n_genes + 3, sizeof *room->word, &room->word));
    CPA_TRY(cpa_alloc((size_t)n_genes, sizeof *room->maybe, &room->maybe));
cleanup:
    return st;
}

void cpa_sim_room_fini(cpa_sim_room *room)
{
    cpa_free(&room->mean);
    cpa_free(&room->word);
    cpa_free(&room->maybe);
}

// A word for every gene: four at a time, the k-th of each four in the k-th quarter.
static void draw_words(const cpa_truth *t, int64_t i, uint32_t *word)
{
    uint32_t n = ((uint32_t)t->config->n_genes + 3) / 4;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t w[4];
        cpa_sim_words(t, CPA_DRAW_COUNT, i, j, w);
        word[j] = w[0];
        word[n + j] = w[1];
        word[2 * n + j] = w[2];
        word[3 * n + j] = w[3];
    }
}

// The chance that a negative binomial count is not 0; *zero the chance that it is.
static double chance(double mean, double dispersion, double *zero)
{
    *zero = exp(-dispersion * log1p(mean / dispersion));
    return 1 - *zero;
}

// The count k whose tail P(X > k) is the first at or below u, given the tail at 0.
static float invert(double u, double mean, double dispersion, double tail, double p)
{
    double part = mean / (mean + dispersion);
    int k = 0;
    while (u < tail) {
        k++;
        p *= (k - 1 + dispersion) / k * part;
        tail -= p;
    }
    return (float)k;
}

int64_t cpa_sim_draw(const cpa_truth *t, int64_t i, cpa_sim_room *room, int32_t *gene, float *count)
{
    int32_t n_genes = t->config->n_genes, n_maybe = 0;
    cpa_sim_cell cell = cpa_sim_cell_of(t, i);
    const float *basal = t->basal + (int64_t)cell.type * n_genes, *fold = t->batch_fold + (int64_t)cell.batch * n_genes;
    float *mean = room->mean, library = (float)cell.library;
    for (int32_t g = 0; g < n_genes; g++) {
        mean[g] = library * basal[g] * fold[g];
    }
    cpa_truth_apply(t, &t->condition[cell.condition], mean);
    draw_words(t, i, room->word);
    // P(X > 0) is below the mean, so most genes are 0 by one comparison.
    for (int32_t g = 0; g < n_genes; g++) {
        room->maybe[n_maybe] = g;
        n_maybe += (float)room->word[g] * 0x1p-32f <= mean[g];
    }
    int64_t n = 0;
    for (int32_t k = 0; k < n_maybe; k++) {
        int32_t g = room->maybe[k];
        double u = cpa_sim_unit(room->word[g]), zero, some = chance(mean[g], t->dispersion[g], &zero);
        if (u < some) {
            gene[n] = g;
            count[n++] = invert(u, mean[g], t->dispersion[g], some, zero);
        }
    }
    return n;
}

double cpa_sim_density(const cpa_truth *t)
{
    // Gauss-Hermite: nodes and weights for a standard normal variable.
    static const double node[5] = {-2.856970013872806, -1.355626179974266, 0, 1.355626179974266, 2.856970013872806};
    static const double weight[5] = {0.011257411327721, 0.222075922005613, 0.533333333333333, 0.222075922005613,
                                     0.011257411327721};
    int64_t n_genes = t->config->n_genes, n_types = t->config->cell_types;
    double sum = 0, zero;
    for (int q = 0; q < 5; q++) {
        double library = exp(t->library_mean + t->library_sd * node[q]);
        for (int64_t k = 0; k < n_types * n_genes; k++) {
            sum += weight[q] * chance(library * t->basal[k], t->dispersion[k % n_genes], &zero);
        }
    }
    return sum / (double)(n_types * n_genes);
}
