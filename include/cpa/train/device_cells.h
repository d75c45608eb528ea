// Owns: a copy of all resident cells where a device can take its batches from. Never decides whether cells are resident.
#ifndef CPA_TRAIN_DEVICE_CELLS_H
#define CPA_TRAIN_DEVICE_CELLS_H

#include "cpa/data/feed.h"
#include "cpa/platform/backend.h"

typedef struct cpa_device_cells cpa_device_cells;

/** Copies the cells of the feed to the backend's device. *out is NULL where there is nothing to gain: the backend computes on the host,
 *  cells are streamed, or the device has no room. Rank-local. */
cpa_status cpa_device_cells_create(cpa_backend *be, const cpa_feed *feed, int n_genes, cpa_device_cells **out);

/** Gives the memory back and sets *c to NULL; NULL-safe. */
void cpa_device_cells_destroy(cpa_device_cells **c);

/** What batches name (cpa_batch.all); NULL for NULL. Borrowed. */
const cpa_all_cells *cpa_device_cells_all(const cpa_device_cells *c);

#endif
