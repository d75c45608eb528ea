// Owns: the command `compare`: which comparison, and how its result is shown. Never computes.
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "compare_impl.h"
#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/base/text.h"

static cpa_status is_run(const char *path, bool *run)
{
    cpa_status st = CPA_OK;
    struct stat info;
    CPA_REQUIRE(stat(path, &info) == 0, CPA_NO_INPUT, "no such run folder or file: '%s'", path);
    *run = S_ISDIR(info.st_mode);
cleanup:
    return st;
}

static cpa_status check(const cpa_options *o, bool *runs)
{
    cpa_status st = CPA_OK;
    bool a = false, b = false;
    CPA_TRY(is_run(o->path, &a));
    CPA_TRY(is_run(o->path_b, &b));
    CPA_REQUIRE(a == b, CPA_USAGE, "'%s' is a %s and '%s' a %s; compare takes two runs, or two files of predictions",
                o->path, a ? "folder" : "file", o->path_b, b ? "folder" : "file");
    CPA_REQUIRE(!a || o->data_path, CPA_USAGE, "compare needs --data DATA.h5ad, the cells to compare two runs on");
    CPA_REQUIRE(a || (!o->data_path && !o->split), CPA_USAGE,
                "two files of predictions are compared as they are; --data and --split are for runs");
    if (o->out) {
        CPA_TRY(cpa_output_check(o->out));
    }
    *runs = a;
cleanup:
    return st;
}

static cpa_status add_number(cpa_text *out, double x, bool csv)
{
    if (csv) {
        return isfinite(x) ? cpa_text_add(out, ",%.9g", x) : cpa_text_add(out, ",");
    }
    return isfinite(x) ? cpa_text_add(out, " %11.6f", x) : cpa_text_add(out, " %11s", "-");
}

static cpa_status write_rows(const cpa_comparison *c, int n, bool csv, cpa_text *out)
{
    cpa_status st = CPA_OK;
    CPA_TRY(csv ? cpa_text_add(out, "metric,a,b,between\n")
                : cpa_text_add(out, "%-24s %11s %11s %11s\n", "metric", "A", "B", "between"));
    for (int i = 0; i < n; i++) {
        CPA_TRY(cpa_text_add(out, csv ? "%s" : "%-24s", c[i].metric));
        CPA_TRY(add_number(out, c[i].a, csv));
        CPA_TRY(add_number(out, c[i].b, csv));
        CPA_TRY(add_number(out, c[i].between, csv));
        CPA_TRY(cpa_text_add(out, "\n"));
    }
cleanup:
    return st;
}

// Rank 0 only.
static cpa_status show(const cpa_options *o, const cpa_comparison *c, int n)
{
    cpa_status st = CPA_OK;
    cpa_text text = {0};
    CPA_TRY(write_rows(c, n, o->out != NULL, &text));
    if (o->out) {
        CPA_TRY(cpa_output_write(o->out, cpa_text_str(&text), text.n));
        cpa_info("%s: '%s' beside '%s'", o->out, o->path, o->path_b);
    } else {
        fputs(cpa_text_str(&text), stdout);
    }
cleanup:
    cpa_text_fini(&text);
    return st;
}

cpa_status cpa_cmd_compare(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_comparison c[CPA_MOST_COMPARISONS];
    int n = 0;
    bool runs = false, writer = cpa_comm_rank(comm) == 0;
    CPA_TRY(cpa_comm_agree(comm, check(o, &runs)));
    if (runs) {
        CPA_TRY(cpa_compare_runs(comm, o, c, &n));
    } else {
        cpa_comm_phase("comparing");
        CPA_TRY(cpa_comm_agree_rested(comm, cpa_comm_alone(comm) ? cpa_compare_files(o, c, &n) : CPA_OK));
    }
    CPA_TRY(cpa_comm_agree(comm, writer ? show(o, c, n) : CPA_OK));
cleanup:
    return st;
}
