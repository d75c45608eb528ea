// Owns: writing log.jsonl. Every line is flushed, so that a run that dies leaves its last words. Never reads it back.
#include "cpa/app/runlog.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpa/base/log.h"

struct cpa_runlog {
    FILE *file; // NULL on other ranks than 0
    char *path;
    double start;
    bool is_full; // a note could not be written
};

static cpa_status open_file(cpa_runlog *log, cpa_rundir *dir)
{
    cpa_status st;
    const char *path;
    CPA_TRY(cpa_rundir_file(dir, "log.jsonl", &path));
    CPA_TRY(cpa_strdup(path, &log->path));
    log->file = fopen(path, "a");
    CPA_REQUIRE(log->file != NULL, CPA_IO, "cannot write '%s': %s", path, strerror(errno));
cleanup:
    return st;
}

cpa_status cpa_runlog_open(cpa_comm *comm, cpa_rundir *dir, cpa_runlog **out)
{
    cpa_runlog *log = NULL;
    cpa_status st = cpa_alloc(1, sizeof *log, &log);
    if (st == CPA_OK) {
        log->start = cpa_seconds();
        st = cpa_comm_rank(comm) == 0 ? open_file(log, dir) : CPA_OK;
    }
    st = cpa_comm_agree(comm, st);
    if (st != CPA_OK) {
        cpa_runlog_close(&log);
    }
    *out = log;
    return st;
}

void cpa_runlog_close(cpa_runlog **log)
{
    if (*log == NULL) {
        return;
    }
    if ((*log)->file != NULL) {
        fclose((*log)->file);
    }
    cpa_free(&(*log)->path);
    cpa_free(log);
}

cpa_status cpa_runlog_event(cpa_runlog *log, const char *event, const cpa_runlog_field *fields, int n)
{
    if (log->file == NULL) {
        return CPA_OK;
    }
    cpa_status st = CPA_OK;
    cJSON *line = cJSON_CreateObject();
    bool ok = cJSON_AddStringToObject(line, "event", event) != NULL;
    for (int i = 0; ok && i < n; i++) {
        ok = fields[i].text != NULL ? cJSON_AddStringToObject(line, fields[i].name, fields[i].text) != NULL
                                    : cJSON_AddNumberToObject(line, fields[i].name, fields[i].number) != NULL;
    }
    ok = ok && cJSON_AddNumberToObject(line, "t", cpa_seconds() - log->start) != NULL;
    char *text = ok ? cJSON_PrintUnformatted(line) : NULL;
    CPA_REQUIRE(text != NULL, CPA_INTERNAL, "out of memory writing '%s'", log->path);
    CPA_REQUIRE(fprintf(log->file, "%s\n", text) > 0 && fflush(log->file) == 0, CPA_IO, "cannot write '%s': %s",
                log->path, strerror(errno));
cleanup:
    cJSON_free(text);
    cJSON_Delete(line);
    return st;
}

void cpa_runlog_note(cpa_runlog *log, const char *event, const cpa_runlog_field *fields, int n)
{
    if (cpa_runlog_event(log, event, fields, n) != CPA_OK && !log->is_full) {
        cpa_warn("%s; training goes on", cpa_message());
        log->is_full = true;
    }
}

enum { RSS, HIGH, READ, RATE, WAITING, N_FIGURES };

static const char *const figures[N_FIGURES] = {"rss", "high", "bytes_read", "cells_per_s", "waiting"};

// One line over all ranks: least, mean and most of every figure.
static cpa_status write_ranks(cpa_runlog *log, const char *stage, const double *all, int n_ranks)
{
    cpa_runlog_field fields[2 + 3 * N_FIGURES] = {{.name = "stage", .text = stage},
                                                  {.name = "ranks", .number = n_ranks}};
    char names[3 * N_FIGURES][32];
    for (int k = 0; k < N_FIGURES; k++) {
        double least = all[k], most = all[k], sum = 0;
        for (int r = 0; r < n_ranks; r++) {
            double x = all[r * N_FIGURES + k];
            least = x < least ? x : least;
            most = x > most ? x : most;
            sum += x;
        }
        const double value[] = {least, sum / n_ranks, most};
        for (int i = 0; i < 3; i++) {
            static const char *const endings[] = {"min", "mean", "max"};
            snprintf(names[3 * k + i], sizeof names[0], "%s_%s", figures[k], endings[i]);
            fields[2 + 3 * k + i] = (cpa_runlog_field){.name = names[3 * k + i], .number = value[i]};
        }
    }
    return cpa_runlog_event(log, "ranks", fields, 2 + 3 * N_FIGURES);
}

cpa_status cpa_runlog_stage(cpa_runlog *log, cpa_comm *comm, const char *stage, const cpa_runlog_work *work)
{
    cpa_status st;
    int n_ranks = cpa_comm_size(comm);
    size_t rss, high;
    double seconds = work->seconds > 0 ? work->seconds : 1, *all = NULL;
    cpa_rss(&rss, &high);
    const double mine[N_FIGURES] = {(double)rss, (double)high, work->read, work->cells / seconds,
                                    work->waited / seconds};
    CPA_TRY(cpa_comm_agree(comm, cpa_alloc((size_t)n_ranks, sizeof mine, &all)));
    CPA_TRY(cpa_comm_allgather(comm, mine, all, sizeof mine));
    for (int r = 0; r < n_ranks && st == CPA_OK; r++) {
        cpa_runlog_field fields[2 + N_FIGURES] = {{.name = "stage", .text = stage}, {.name = "rank", .number = r}};
        for (int k = 0; k < N_FIGURES; k++) {
            fields[2 + k] = (cpa_runlog_field){.name = figures[k], .number = all[r * N_FIGURES + k]};
        }
        st = cpa_runlog_event(log, "memory", fields, 2 + N_FIGURES);
    }
    st = st == CPA_OK ? write_ranks(log, stage, all, n_ranks) : st;
    st = cpa_comm_agree(comm, st);
cleanup:
    cpa_free(&all);
    return st;
}

cpa_status cpa_runlog_items(cpa_runlog *log, cpa_comm *comm, const cpa_ledger *ledger)
{
    cpa_status st;
    int n_ranks = cpa_comm_size(comm);
    double mine[CPA_N_ITEMS], *all = NULL;
    for (int i = 0; i < CPA_N_ITEMS; i++) {
        mine[i] = (double)cpa_ledger_item(ledger, (cpa_item)i);
    }
    CPA_TRY(cpa_comm_agree(comm, cpa_alloc((size_t)n_ranks, sizeof mine, &all)));
    CPA_TRY(cpa_comm_allgather(comm, mine, all, sizeof mine));
    for (int r = 0; r < n_ranks && st == CPA_OK; r++) {
        cpa_runlog_field fields[1 + CPA_N_ITEMS] = {{.name = "rank", .number = r}};
        for (int i = 0; i < CPA_N_ITEMS; i++) {
            fields[1 + i] = (cpa_runlog_field){.name = cpa_item_name((cpa_item)i), .number = all[r * CPA_N_ITEMS + i]};
        }
        st = cpa_runlog_event(log, "items", fields, 1 + CPA_N_ITEMS);
    }
    st = cpa_comm_agree(comm, st);
cleanup:
    cpa_free(&all);
    return st;
}
