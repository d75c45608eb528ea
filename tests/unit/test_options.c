// Owns: tests of the options: table, command line, YAML, help. Writes only below a folder of its own in /tmp.
// Never runs a command.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/app/options.h"
#include "cpa/app/rundir.h"
#include "cpa/app/runlog.h"

static char folder[] = "/tmp/cpa-options-XXXXXX";

// A path in the test's folder; a ring of names, so that several can be in use.
static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", folder, name);
    return paths[at];
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = in_folder(name);
    assert_int_equal(cpa_output_write(path, text, strlen(text)), CPA_OK);
    return path;
}

static void assert_says(const char *part)
{
    if (strstr(cpa_message(), part) == NULL) {
        fail_msg("'%s' does not say '%s'", cpa_message(), part);
    }
}

// Parses words; `o` must be freed whatever comes back.
static cpa_status parse_words(cpa_options *o, char **words)
{
    int n = 0;
    while (words[n] != NULL) {
        n++;
    }
    return cpa_options_parse(n, words, o);
}

#define PARSE(o, ...) parse_words(o, (char *[]){"cpa-hpc", __VA_ARGS__, NULL})

// Expects a status and a part of its message.
#define REFUSES(code, part, ...)                                                                                       \
    do {                                                                                                               \
        cpa_options refused;                                                                                           \
        assert_int_equal(PARSE(&refused, __VA_ARGS__), code);                                                          \
        assert_says(part);                                                                                             \
        cpa_options_fini(&refused);                                                                                    \
    } while (0)

static void test_table_is_sound(void **state)
{
    (void)state;
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        bool is_number = p->type == CPA_OPTION_INT || p->type == CPA_OPTION_INT64 || p->type == CPA_OPTION_REAL;
        assert_true(!is_number || (p->max > p->min && p->def != NULL));
        assert_true(p->type == CPA_OPTION_STRING || p->choices == NULL);
        assert_true(p->type == CPA_OPTION_STRING || p->required == 0);
        assert_int_equal(p->required & ~p->commands, 0);
        assert_true(strlen(p->help) > 0 && p->commands != 0);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(p->name, cpa_option_table()[k].name);
            assert_int_not_equal(p->offset, cpa_option_table()[k].offset);
        }
    }
}

static void test_defaults(void **state)
{
    (void)state;
    cpa_options o;
    assert_int_equal(PARSE(&o, "train", "a.h5ad", "--out", "run"), CPA_OK);
    assert_int_equal(o.command, CPA_COMMAND_TRAIN);
    assert_int_equal(o.request, CPA_REQUEST_RUN);
    assert_string_equal(o.path, "a.h5ad");
    assert_string_equal(o.out, "run");
    assert_int_equal(o.model.n_latent, 128);
    assert_string_equal(o.model.recon_loss, "nb");
    assert_true(o.train.lr == 5e-4 && o.train.doser_wd == 4e-7 && o.model.dropout_rate_adv == 0.1);
    assert_int_equal(o.train.adv_steps, 3);
    assert_int_equal(o.train.lanes, 1);
    assert_string_equal(o.train.shuffle, "auto");
    assert_null(o.data.perturbation_key);
    assert_string_equal(o.data.test_split, "ood");
    assert_int_equal(o.data.categorical_covariate_keys.n, 0);
    assert_string_equal(o.backend, "cpu");
    assert_false(o.quiet);
    cpa_options_fini(&o);
}

static void test_command_line(void **state)
{
    (void)state;
    cpa_options o;
    assert_int_equal(PARSE(&o, "predict", "--data=d.h5ad", "run", "--out", "p.h5ad", "--perturbation", "A+B", "--dose",
                           "-1", "--set", "cell_type=B,1", "--set", "donor=2", "--categorical-covariate-keys", "x, y",
                           "--reconstruct", "--quiet=false", "--output", "mean", "--threads", "2", "--threads", "3"),
                     CPA_OK);
    assert_string_equal(o.path, "run");
    assert_string_equal(o.data_path, "d.h5ad");
    assert_string_equal(o.dose, "-1");
    assert_int_equal(o.set.n, 2);
    assert_string_equal(o.set.s[0], "cell_type=B,1");
    assert_int_equal(o.data.categorical_covariate_keys.n, 2);
    assert_string_equal(o.data.categorical_covariate_keys.s[1], "y");
    assert_true(o.reconstruct && !o.quiet);
    assert_int_equal(o.threads, 3);
    cpa_options_fini(&o);
    // Underscores, none for 0, the last of a repeated list, one seed for all, a path behind --.
    assert_int_equal(PARSE(&o, "train", "--n_latent=7", "--adv-steps", "none", "--max-epochs", "NULL", "--seed", "5",
                           "--out", "r", "--categorical-covariate-keys", "x", "--categorical-covariate-keys", "z",
                           "--lr", "1e-3", "--", "--odd.h5ad"),
                     CPA_OK);
    assert_int_equal(o.model.n_latent, 7);
    assert_int_equal(o.train.adv_steps, 0);
    assert_int_equal(o.train.max_epochs, 0);
    assert_true(o.data.seed == 5 && o.model.seed == 5 && o.train.lr == 1e-3);
    assert_int_equal(o.data.categorical_covariate_keys.n, 1);
    assert_string_equal(o.data.categorical_covariate_keys.s[0], "z");
    assert_string_equal(o.path, "--odd.h5ad");
    cpa_options_fini(&o);
}

// A flag's value may be the next word, when that is one.
static void test_flags(void **state)
{
    (void)state;
    cpa_options o;
    assert_int_equal(PARSE(&o, "train", "--variational", "true", "--use-batch-norm-encoder", "False", "--do-clip-grad",
                           "a", "--use-layer-norm-decoder", "1", "--use-batch-norm-decoder", "0",
                           "--use-batch-norm-adv", "no", "--out", "r", "--use-layer-norm-adv"),
                     CPA_OK);
    assert_true(o.model.variational && o.train.do_clip_grad && o.model.use_layer_norm_decoder);
    assert_false(o.model.use_batch_norm_encoder || o.model.use_batch_norm_decoder || o.model.use_batch_norm_adv);
    assert_true(o.model.use_layer_norm_adv);
    assert_string_equal(o.path, "a");
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "train", "--out", "r", "--quiet", "--", "yes"), CPA_OK);
    assert_true(o.quiet);
    assert_string_equal(o.path, "yes");
    cpa_options_fini(&o);
    REFUSES(CPA_USAGE, "'maybe' is one path too many after 'a'", "train", "a", "--out", "r", "--quiet", "maybe");
}

static void test_requests(void **state)
{
    (void)state;
    cpa_options o;
    assert_int_equal(PARSE(&o, "--version"), CPA_OK);
    assert_int_equal(o.request, CPA_REQUEST_VERSION);
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "train", "--nonsense", "-h"), CPA_OK);
    assert_true(o.request == CPA_REQUEST_HELP && o.command == CPA_COMMAND_TRAIN);
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "help", "options"), CPA_OK);
    assert_int_equal(o.request, CPA_REQUEST_OPTIONS);
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "help", "check"), CPA_OK);
    assert_true(o.request == CPA_REQUEST_HELP && o.command == CPA_COMMAND_CHECK);
    cpa_options_fini(&o);
}

static void test_usage_errors(void **state)
{
    (void)state;
    cpa_options o;
    assert_int_equal(cpa_options_parse(1, (char *[]){"cpa-hpc", NULL}, &o), CPA_USAGE);
    assert_says("no command");
    cpa_options_fini(&o);
    REFUSES(CPA_USAGE, "did you mean train?", "trian", "a");
    REFUSES(CPA_USAGE, "the command comes first", "--quiet", "train");
    REFUSES(CPA_USAGE, "did you mean --n-latent?", "train", "a", "--out", "r", "--n-latnet", "3");
    REFUSES(CPA_USAGE, "unknown option --zzz ", "train", "a", "--out", "r", "--zzz", "3");
    REFUSES(CPA_USAGE, "predict takes no --lr", "predict", "a", "--lr", "3");
    REFUSES(CPA_USAGE, "unknown option -x", "train", "a", "-x");
    REFUSES(CPA_USAGE, "--out needs a value", "train", "a", "--out", "--quiet");
    REFUSES(CPA_USAGE, "--out needs a value", "train", "a", "--out");
    REFUSES(CPA_USAGE, "train needs --out PATH", "train", "a");
    REFUSES(CPA_USAGE, "train needs --out PATH", "train", "a", "--out=");
    REFUSES(CPA_USAGE, "train needs a path", "train", "--out", "r");
    REFUSES(CPA_USAGE, "'b' is one path too many after 'a'", "train", "a", "b", "--out", "r");
    REFUSES(CPA_USAGE, "predict needs --data DATA.h5ad", "predict", "r", "--out", "p");
}

static void test_value_errors(void **state)
{
    (void)state;
#define BAD(option, value, part) REFUSES(CPA_USAGE, part, "train", "a", "--out", "r", option, value)
    BAD("--n-latent", "abc", "--n-latent: wants an integer, 1 to 65536, not 'abc'");
    BAD("--n-latent", "0", "not '0'");
    BAD("--n-latent", "1.5", "not '1.5'");
    BAD("--n-latent", " 3", "not ' 3'");
    BAD("--n-latent", "99999999999999999999", "1 to 65536");
    BAD("--n-latent", "none", "not 'none'");
    BAD("--n-latent", "", "not ''");
    BAD("--lanes", "3", "a power of two");
    BAD("--batch-size", "2", "an integer, 3 or more, not '2'");
    BAD("--max-epochs", "2147483648", "not '2147483648'");
    BAD("--lr", "-1", "--lr: wants a number, 0 or more, not '-1'");
    BAD("--lr", "nan", "not 'nan'");
    BAD("--lr", "inf", "not 'inf'");
    BAD("--lr", "1e999", "not '1e999'");
    BAD("--lr", "0x10", "not '0x10'");
    BAD("--train-size", "0", "above 0 to 1");
    BAD("--dropout-rate-adv", "1", "0 to below 1");
    BAD("--seed", "-1", "an integer, 0 to 9007199254740991");
    BAD("--shuffle", "ful", "one of auto, full, block");
    BAD("--recon-loss", "poisson", "one of nb, zinb, gauss");
    BAD("--shuffle", "", "one of auto, full, block");
    BAD("--quiet=maybe", "x", "true or false");
    BAD("--categorical-covariate-keys", "a,,b", "one is empty");
#undef BAD
}

static void test_yaml(void **state)
{
    (void)state;
    cpa_options o;
    const char *path = write_file("run.yaml", "# comment\nn_latent: 9\nlr: 1.0e-2\nlayer: \"null\"\nbatch_key: null\n"
                                              "seed: 11\ncategorical_covariate_keys: [\"a,b\", c]\nadv_steps: none\n"
                                              "quiet: true\nout: r\nreconstruct: true\n");
    assert_int_equal(PARSE(&o, "train", "a", "--config", (char *)path, "--n-latent", "5"), CPA_OK);
    assert_int_equal(o.model.n_latent, 5); // the command line wins
    assert_true(o.train.lr == 1e-2 && o.model.seed == 11 && o.train.adv_steps == 0 && o.quiet);
    assert_string_equal(o.data.layer, "null");
    assert_null(o.data.batch_key);
    assert_int_equal(o.data.categorical_covariate_keys.n, 2);
    assert_string_equal(o.data.categorical_covariate_keys.s[0], "a,b");
    assert_string_equal(o.out, "r");
    assert_false(o.reconstruct); // not an option of train
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "train", "a", "--out", "r", "--config", (char *)write_file("empty.yaml", "# none\n")),
                     CPA_OK);
    cpa_options_fini(&o);
}

static void test_yaml_errors(void **state)
{
    (void)state;
#define BAD(text, part)                                                                                                \
    REFUSES(CPA_CONFIG, part, "train", "a", "--out", "r", "--config", (char *)write_file("bad.yaml", text))
    BAD("lr: 1\n\nseed: abc\n", "bad.yaml:3: seed: wants an integer, 0 to 9007199254740991, not 'abc'");
    BAD("lr: 1\nn_latnet: 3\n", "bad.yaml:2: unknown option 'n_latnet'; did you mean n_latent?");
    BAD("n-latent: 3\n", "bad.yaml:1: unknown option 'n-latent'; did you mean n_latent?");
    BAD("lr: 1\nlr: 2\n", "bad.yaml:2: 'lr' is set a second time");
    BAD("lr: [1, 2]\n", "bad.yaml:1: lr: wants a single value, not a list");
    BAD("train: {lr: 1}\n", "bad.yaml:1: unknown option 'train'");
    BAD("categorical_covariate_keys: [[a]]\n", "one is a list or a mapping");
    BAD("categorical_covariate_keys: {a: b}\n", "not a mapping");
    BAD("- lr\n", "bad.yaml:1: expected lines of the form");
    BAD("lr: [1\n", "not YAML");
    BAD("lr: 1\n\tseed: 2\n", "not YAML");
    BAD("config: x.yaml\n", "cannot name another");
    BAD("output: sideways\n", "one of cells, mean"); // not of this command, checked all the same
    BAD("n_latent:\n", "not ''");
#undef BAD
    REFUSES(CPA_NO_INPUT, "cannot read the configuration 'nowhere.yaml'", "train", "a", "--config", "nowhere.yaml");
}

// A preset beats the defaults, a configuration beats the preset, the command line beats both.
static void test_presets(void **state)
{
    (void)state;
    cpa_options o, again, run = {0};
    const char *path = write_file("preset.yaml", "preset: kang\nbatch_size: 64\nn_latent: 9\n");
    assert_int_equal(
        PARSE(&o, "train", "a", "--config", (char *)path, "--n-latent", "10", "--adv-steps", "3", "--out", "r"),
        CPA_OK);
    assert_int_equal(o.model.n_latent, 10);
    assert_int_equal(o.train.batch_size, 64);
    assert_int_equal(o.train.adv_steps, 3); // also what is the default, when it was typed
    assert_string_equal(o.model.doser_type, "linear");
    assert_true(o.model.n_hidden_encoder == 128 && o.model.n_layers_encoder == 2 && o.model.n_hidden_decoder == 512);
    assert_true(o.model.use_batch_norm_encoder && !o.model.use_batch_norm_decoder && o.model.use_layer_norm_decoder);
    assert_true(o.train.n_epochs_pretrain_ae == 30 && o.train.n_epochs_adv_warmup == 50 && o.train.step_size_lr == 10);
    assert_true(o.train.reg_adv == 20 && o.train.pen_adv == 5 && o.train.lr == 3e-4 && o.model.dropout_rate_adv == 0.3);
    assert_true(o.train.do_clip_grad && o.train.gradient_clip_value == 1);
    assert_true(o.data.seed == 6977 && o.model.seed == 6977);
    // The run remembers what came of it, not the preset.
    char config[256];
    snprintf(config, sizeof config, "%s/config.yaml", folder);
    assert_int_equal(cpa_options_write(&o, config), CPA_OK);
    assert_int_equal(PARSE(&again, "predict", folder, "--data", "d", "--out", "p"), CPA_OK);
    assert_int_equal(cpa_options_of_run(&again, folder, &run), CPA_OK);
    assert_null(run.preset);
    assert_true(run.model.n_hidden_decoder == 512 && run.model.n_latent == 10 && run.train.pen_adv == 5);
    cpa_options_fini(&run);
    cpa_options_fini(&again);
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "train", "a", "--preset", "norman", "--out", "r"), CPA_OK);
    assert_true(o.model.n_latent == 32 && o.train.batch_size == 2048 && o.train.doser_lr == 3e-4 &&
                o.model.seed == 8206);
    cpa_options_fini(&o);
    assert_int_equal(PARSE(&o, "train", "a", "--preset", "combosciplex", "--seed", "1", "--out", "r"), CPA_OK);
    assert_true(o.model.n_latent == 128 && o.train.adv_steps == 2 && o.model.seed == 1);
    assert_string_equal(o.model.doser_type, "logsigm");
    cpa_options_fini(&o);
    REFUSES(CPA_USAGE, "one of kang, norman, combosciplex", "train", "a", "--out", "r", "--preset", "pbmc");
    REFUSES(CPA_USAGE, "predict takes no --preset", "predict", "a", "--preset", "kang");
}

static void test_run_remembers(void **state)
{
    (void)state;
    cpa_options o, run = {0}, again;
    assert_int_equal(PARSE(&o, "train", "a", "--out", "r", "--lr", "0.1234567890123456789", "--adv-wd", "3e-7",
                           "--seed", "9007199254740991", "--layer", "a: \"b\" # \xc3\xa9",
                           "--categorical-covariate-keys", "1,null", "--max-epochs", "100000", "--wd", "0"),
                     CPA_OK);
    char path[256];
    snprintf(path, sizeof path, "%s/config.yaml", folder);
    assert_int_equal(cpa_options_write(&o, path), CPA_OK);
    assert_int_equal(PARSE(&again, "evaluate", folder, "--data", "d", "--out", "s", "--split-key", "mine"), CPA_OK);
    assert_int_equal(cpa_options_of_run(&again, folder, &run), CPA_OK);
    assert_true(run.train.lr == o.train.lr && run.train.adv_wd == 3e-7 && run.train.wd == 0);
    assert_true(run.data.seed == 9007199254740991 && run.model.seed == 9007199254740991);
    assert_string_equal(run.data.layer, o.data.layer);
    assert_string_equal(run.data.split_key, "mine"); // the command line wins
    assert_int_equal(run.data.categorical_covariate_keys.n, 2);
    assert_string_equal(run.data.categorical_covariate_keys.s[1], "null");
    assert_int_equal(run.train.max_epochs, 100000);
    assert_null(run.data.batch_key);
    assert_string_equal(run.data_path, "d");
    assert_int_equal(run.command, CPA_COMMAND_EVALUATE);
    // Written again, the file is the same byte for byte, but for what the command line said.
    cpa_free(&run.data.split_key);
    const char *second = in_folder("second.yaml");
    assert_int_equal(cpa_options_write(&run, second), CPA_OK);
    char command[600];
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", path, second);
    assert_int_equal(system(command), 0);
    cpa_options_fini(&run);
    write_file("config.yaml", "lr: 1\nbackend: cpu\n");
    run = (cpa_options){0};
    assert_int_equal(cpa_options_of_run(&again, folder, &run), CPA_CONFIG);
    assert_says("config.yaml:2: unknown option 'backend'");
    cpa_options_fini(&run);
    run = (cpa_options){0};
    assert_int_equal(cpa_options_of_run(&again, "/nowhere", &run), CPA_NO_INPUT);
    assert_int_equal(cpa_options_of_run(&again, path, &run), CPA_NO_INPUT);
    assert_says("is not a run folder");
    cpa_options_fini(&run);
    cpa_options_fini(&again);
    cpa_options_fini(&o);
}

// None is not the same as left open: what a run knows to be absent must not be inferred from another file.
static void test_none_is_remembered(void **state)
{
    (void)state;
    cpa_options o, again, run = {0};
    assert_int_equal(PARSE(&o, "train", "a", "--out", "r", "--split-key", "",
                           "--categorical-covariate-keys=", "--layer=", "--valid-split", ""),
                     CPA_OK);
    assert_string_equal(o.data.split_key, "");
    assert_string_equal(o.data.valid_split, "");
    assert_null(o.data.layer); // for the layer there is no difference
    assert_null(o.data.dosage_key);
    assert_int_equal(o.data.categorical_covariate_keys.n, 1);
    char path[256];
    snprintf(path, sizeof path, "%s/config.yaml", folder);
    assert_int_equal(cpa_options_write(&o, path), CPA_OK);
    assert_int_equal(PARSE(&again, "predict", folder, "--data", "d", "--out", "p"), CPA_OK);
    assert_int_equal(cpa_options_of_run(&again, folder, &run), CPA_OK);
    assert_string_equal(run.data.split_key, "");
    assert_string_equal(run.data.valid_split, "");
    assert_string_equal(run.data.test_split, "ood");
    assert_null(run.data.layer);
    assert_null(run.data.dosage_key);
    assert_int_equal(run.data.categorical_covariate_keys.n, 1);
    assert_string_equal(run.data.categorical_covariate_keys.s[0], "");
    cpa_options_fini(&run);
    cpa_options_fini(&again);
    cpa_options_fini(&o);
}

static void test_help(void **state)
{
    (void)state;
    for (int command = CPA_COMMAND_NONE; command <= CPA_COMMAND_IMPORT; command++) {
        cpa_text text = {0};
        assert_int_equal(cpa_options_help((cpa_command)command, &text), CPA_OK);
        assert_non_null(strstr(cpa_text_str(&text), "usage: cpa-hpc"));
        for (int i = 0; i < CPA_N_OPTIONS; i++) {
            const cpa_option *p = &cpa_option_table()[i];
            bool is_listed = strstr(cpa_text_str(&text), p->help) != NULL;
            assert_int_equal(is_listed, (p->commands & 1u << command) != 0);
        }
        cpa_text_fini(&text);
    }
}

// docs/options.md is what `cpa-hpc help options` prints; the folder of the tests, or this file's own path, leads to it.
static void test_page_is_up_to_date(void **state)
{
    (void)state;
    char path[1024];
    const char *here = __FILE__, *tail = "tests/unit/test_options.c";
    int n = (int)(strlen(here) - strlen(tail));
    assert_true(n >= 0);
    if (getenv("CPA_TESTS") != NULL) {
        snprintf(path, sizeof path, "%s/../docs/options.md", getenv("CPA_TESTS"));
    } else {
        snprintf(path, sizeof path, "%.*sdocs/options.md", n, here);
    }
    cpa_text page = {0}, file = {0};
    assert_int_equal(cpa_options_page(&page), CPA_OK);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        fail_msg("cannot read %s", path);
    }
    for (int c = fgetc(f); c != EOF; c = fgetc(f)) {
        assert_int_equal(cpa_text_add(&file, "%c", c), CPA_OK);
    }
    fclose(f);
    if (strcmp(cpa_text_str(&file), cpa_text_str(&page)) != 0) {
        fail_msg("docs/options.md is not what the table says; run: cpa-hpc help options > docs/options.md");
    }
    cpa_text_fini(&page);
    cpa_text_fini(&file);
}

static void test_run_folder(void **state)
{
    (void)state;
    int argc = 0;
    char **argv = NULL;
    cpa_comm *comm;
    cpa_rundir *dir;
    cpa_runlog *log;
    const cpa_runlog_work work = {.read = 100, .cells = 30, .seconds = 2, .waited = 0.5};
    const char *path;
    char run[256];
    snprintf(run, sizeof run, "%s", in_folder("run"));
    assert_int_equal(cpa_comm_create(&argc, &argv, &comm), CPA_OK);
    assert_int_equal(cpa_rundir_create(comm, run, false, &dir), CPA_OK);
    assert_int_equal(cpa_runlog_open(comm, dir, &log), CPA_OK);
    assert_int_equal(cpa_runlog_stage(log, comm, "set\"up", &work), CPA_OK);
    const cpa_runlog_field fields[] = {{.name = "loss", .number = NAN}, {.name = "epoch", .number = 3}};
    assert_int_equal(cpa_runlog_event(log, "epoch", fields, 2), CPA_OK);
    cpa_runlog_close(&log);
    char line[1024];
    FILE *f = fopen(in_folder("run/log.jsonl"), "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "{\"event\":\"memory\",\"stage\":\"set\\\"up\",\"rank\":0,\"rss\":"));
    assert_non_null(strstr(line, "\"bytes_read\":100,\"cells_per_s\":15,\"waiting\":0.25,\"t\":"));
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "{\"event\":\"ranks\",\"stage\":\"set\\\"up\",\"ranks\":1,\"rss_min\":"));
    assert_non_null(strstr(line, "\"waiting_min\":0.25,\"waiting_mean\":0.25,\"waiting_max\":0.25,\"t\":"));
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "{\"event\":\"epoch\",\"loss\":null,\"epoch\":3,\"t\":"));
    fclose(f);
    // What was not kept is gone; what others put there stays.
    assert_int_equal(cpa_rundir_file(dir, "checkpoints/last.h5", &path), CPA_OK);
    assert_int_equal(cpa_output_write(path, "x", 1), CPA_OK);
    assert_int_equal(cpa_rundir_file(dir, "model.h5", &path), CPA_OK);
    char *temporary = NULL;
    assert_int_equal(cpa_output_begin(path, &temporary), CPA_OK);
    fclose(fopen(temporary, "w"));
    cpa_free(&temporary);
    const char *foreign = write_file("run/notes.txt", "mine");
    cpa_rundir_close(&dir, false);
    assert_int_equal(access(foreign, F_OK), 0);
    assert_int_equal(unlink(foreign), 0);
    assert_int_equal(rmdir(run), 0); // empty but for that
    assert_int_equal(cpa_rundir_create(comm, run, false, &dir), CPA_OK);
    cpa_rundir_close(&dir, false);
    assert_int_not_equal(access(run, F_OK), 0);
    assert_int_equal(cpa_rundir_create(comm, run, false, &dir), CPA_OK);
    cpa_rundir_close(&dir, true);
    assert_int_equal(cpa_rundir_create(comm, run, false, &dir), CPA_CONFIG);
    assert_says("exists already");
    assert_int_equal(cpa_rundir_create(comm, in_folder("no/where"), false, &dir), CPA_NO_INPUT);
    assert_int_equal(cpa_output_begin(in_folder("no/where"), &temporary), CPA_NO_INPUT);
    assert_int_equal(cpa_output_begin(run, &temporary), CPA_IO);
    cpa_comm_destroy(&comm);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command) != 0 || cpa_alloc_balance() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_sound), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_command_line),   cmocka_unit_test(test_flags),
        cmocka_unit_test(test_requests),       cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_value_errors),   cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_yaml_errors),    cmocka_unit_test(test_presets),
        cmocka_unit_test(test_run_remembers),  cmocka_unit_test(test_none_is_remembered),
        cmocka_unit_test(test_help),           cmocka_unit_test(test_page_is_up_to_date),
        cmocka_unit_test(test_run_folder),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
