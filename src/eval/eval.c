/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"
#include "base/try.h"
#include "eval/fingerprint.h"
#include "eval/result.h"
#include "eval/text.h"

#include <errno.h>
#include <math.h>

enum { MAX_TOKENS = 32768, HEADER_BYTES_MAX = 1 << 24 };

/* A run. */
typedef struct run {
    const qn_eval_side *sides; /* [n_sides] */
    const qn_eval_options *options;
    uint32_t n_sides;
    qn_task_set set;
    qn_answers answers;
    char fingerprints[QN_SIDES_MAX][QN_SHA256_HEX_BYTES];
    char kernels[32]; /* name of the set in use */
    qn_text text;     /* closed: none */
    qn_report report;
    qn_asking asking;
    uint32_t i_side; /* at work, as the following */
    uint64_t n_done, n_to_do, n_right;
    qn_model *model; /* owned; NULL: none is open */
} run;

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

/* ------------------------------------------------------------------------------------- progress */

static bool tell(const run *r, const qn_eval_progress *progress)
{
    return r->options->progress == NULL ||
           r->options->progress(r->options->progress_context, progress);
}

/* A qn_progress_fn. */
static bool tell_load(void *context, uint64_t done, uint64_t total)
{
    const run *const r = context;
    return tell(r, &(qn_eval_progress){
                       .phase = QN_EVAL_LOAD, .i_side = r->i_side, .done = done, .total = total});
}

static bool tell_problems(void *context)
{
    const run *const r = context;
    return tell(r, &(qn_eval_progress){.phase = QN_EVAL_PROBLEMS,
                                       .i_side = r->i_side,
                                       .done = r->n_done,
                                       .total = r->n_to_do,
                                       .n_right = r->n_right});
}

static bool tell_text(void *context, uint64_t n_done)
{
    const run *const r = context;
    return tell(r, &(qn_eval_progress){.phase = QN_EVAL_TEXT,
                                       .i_side = r->i_side,
                                       .done = n_done,
                                       .total = r->text.n_tokens,
                                       .spool_bytes = r->text.spool_bytes});
}

/* -------------------------------------------------------------------------------------- opening */

static qn_status open_model(run *r, bool tokenizer_only, qn_error *err)
{
    static const qn_model_options defaults = {0};
    const qn_eval_side *const side = &r->sides[r->i_side];
    qn_model_options options = r->options->model != NULL ? *r->options->model : defaults;
    options.progress = tell_load;
    options.progress_context = r;
    options.device = side->device;
    options.device_option = side->device_option;
    options.compute = side->compute;
    options.kv_dtype = side->kv_dtype;
    options.tokenizer_only = tokenizer_only;
    options.tokenizer_optional = false;
    qn_status status = qn_model_open(&r->model, side->model, &options, err);
    if (status == QN_OK && !tokenizer_only && r->options->check != NULL) {
        status = r->options->check(r->options->progress_context, r->model, err);
    }
    return status;
}

static void ask_as(run *r)
{
    const qn_eval_options *const o = r->options;
    r->asking = (qn_asking){
        .chat = {.no_thinking = r->sides[r->i_side].no_thinking,
                 .is_effort_high = o->is_effort_high},
        .sampling = o->sampling != NULL ? *o->sampling : greedy,
        .draft_tokens = r->sides[r->i_side].draft_tokens,
        .max_tokens = o->max_tokens > 0 ? o->max_tokens : MAX_TOKENS,
        .goes_on = tell_problems,
        .context = r,
    };
}

/* Everything that can be known to be wrong before weights are read: of 438 GB of them that takes a
 * while. */
static qn_status check_side(run *r, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, open_model(r, true, err), fail);
    if (!qn_model_get_info(r->model)->has_tokenizer) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%.250s: no tokenizer.json, one expected",
                         r->sides[r->i_side].model);
        goto fail;
    }
    QN_TRY(status,
           qn_fingerprint(r->fingerprints[r->i_side], qn_model_get_info(r->model)->path, err),
           fail);
    (void)snprintf(r->kernels, sizeof r->kernels, "%s", qn_model_get_info(r->model)->kernels);
    ask_as(r);
    for (uint32_t i = 0; i < r->set.n_problems; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        QN_TRY(status, qn_problem_encode(&ids, &n_ids, r->model, &r->asking.chat, &r->set, i, err),
               fail);
        qn_free(ids);
    }
    if (r->options->text != NULL) {
        QN_TRY(status,
               r->i_side == 0 ? qn_text_open(&r->text, r->model, r->options, r->n_sides, err)
                              : qn_text_check(&r->text, r->model, r->options, err),
               fail);
    }
fail:
    qn_model_close(&r->model);
    return status;
}

static qn_status check_options(const run *r, qn_error *err)
{
    const qn_eval_options *const o = r->options;
    if (r->n_sides < 1 || r->n_sides > QN_SIDES_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "n_sides: %u, 1 or 2 expected", r->n_sides);
    }
    if (o->n_tasks == 0 && o->text == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "tasks: none, --tasks FILE.jsonl,... or --text FILE expected");
    }
    if (o->resumes && o->report == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "resumes (--resume): no report, one to go on with expected (--report)");
    }
    if (o->report != NULL && o->n_tasks == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "report (--report): no problems, --tasks expected: it keeps answers");
    }
    return QN_OK;
}

static qn_status load_tasks(run *r, qn_error *err)
{
    const qn_eval_options *const o = r->options;
    qn_status status = QN_OK;
    for (size_t i = 0; i < o->n_tasks; i++) {
        QN_TRY(status, qn_task_set_load(&r->set, o->tasks[i], o->limit, err), fail);
    }
    r->answers = (qn_answers){.set = &r->set, .n_sides = r->n_sides};
    for (uint32_t i = 0; i < r->n_sides && i < QN_SIDES_MAX; i++) {
        r->answers.models[i] = r->sides[i].model;
        const size_t n = r->set.n_problems > 0 ? r->set.n_problems : 1;
        r->answers.outcomes[i] = calloc(n, sizeof *r->answers.outcomes[i]);
        if (r->answers.outcomes[i] == NULL) {
            status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "answers: no memory");
            goto fail;
        }
    }
fail:
    return status;
}

static qn_status open_report(run *r, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf header;
    if (r->options->report == NULL) {
        return QN_OK;
    }
    qn_buf_init(&header, HEADER_BYTES_MAX);
    const qn_header_args args = {.sides = r->sides,
                                 .n_sides = r->n_sides,
                                 .options = r->options,
                                 .asking = &r->asking,
                                 .set = &r->set,
                                 .fingerprints = r->fingerprints,
                                 .kernels = r->kernels};
    QN_TRY(status, qn_header_append(&header, &args, err), fail);
    QN_TRY(status,
           qn_report_open(&r->report, r->options->report, qn_buf_view(&header), r->options->resumes,
                          &r->answers, err),
           fail);
fail:
    qn_buf_deinit(&header);
    return status;
}

/* ------------------------------------------------------------------------------------ answering */

/* The depth of speculation that @p asked stands for. */
static int draft_in_force(int asked, bool has_mtp)
{
    if (asked == QN_DRAFT_NONE || !has_mtp) {
        return 0;
    }
    return asked == QN_DRAFT_DEFAULT ? QN_DRAFT_TOKENS_DEFAULT : asked;
}

static void note_info(qn_side_info *out, const qn_eval_side *side, const qn_model_info *info)
{
    out->draft_tokens = draft_in_force(side->draft_tokens, info->has_mtp);
    (void)snprintf(out->quantization, sizeof out->quantization, "%s", info->quantization);
    (void)snprintf(out->weights, sizeof out->weights, "%s", info->weights);
    (void)snprintf(out->device, sizeof out->device, "%s", info->device);
    (void)snprintf(out->compute, sizeof out->compute, "%s", info->compute);
    (void)snprintf(out->kv_dtype, sizeof out->kv_dtype, "%s", info->kv_dtype);
}

/* What the report does not have yet, in one session: a prompt that begins as the one before, with
 * the same tools, does not compute that again. */
static qn_status answer_all(run *r, qn_error *err)
{
    qn_status status = QN_OK;
    qn_session *session = NULL;
    qn_reply reply;
    qn_reply_init(&reply);
    qn_outcome *const outcomes = r->answers.outcomes[r->i_side];
    const qn_session_options options = {.fn = qn_reply_take, .context = &reply};
    QN_TRY(status, qn_session_open(&session, r->model, &options, err), fail);
    for (uint32_t i = 0; i < r->set.n_problems; i++) {
        if (outcomes[i].is_done) {
            continue;
        }
        QN_TRY(
            status,
            qn_problem_solve(&outcomes[i], &reply, session, r->model, &r->asking, &r->set, i, err),
            fail);
        QN_TRY(status, qn_report_append(&r->report, &r->answers, r->i_side, i, &reply, err), fail);
        r->n_done++;
        r->n_right += outcomes[i].is_right ? 1 : 0;
        (void)tell_problems(r); /* a wish to stop is heard at the next step */
    }
fail:
    qn_session_close(&session);
    qn_reply_deinit(&reply);
    return status;
}

/* Devices by their names; the same one by another name is opened once more. */
static bool is_same_device(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Do two sides differ in nothing that the model is opened with? */
static bool is_same_model(const qn_eval_side *a, const qn_eval_side *b)
{
    return strcmp(a->model, b->model) == 0 && is_same_device(a->device, b->device) &&
           a->compute == b->compute && a->kv_dtype == b->kv_dtype;
}

static qn_status run_side(run *r, qn_error *err)
{
    qn_status status = QN_OK;
    const qn_outcome *const outcomes = r->answers.outcomes[r->i_side];
    r->n_done = r->n_to_do = r->n_right = 0;
    for (uint32_t i = 0; i < r->set.n_problems; i++) {
        r->n_to_do += outcomes[i].is_done ? 0 : 1;
        r->n_right += outcomes[i].is_done && outcomes[i].is_right ? 1 : 0;
    }
    if (r->n_to_do == 0 && r->options->text == NULL) {
        return QN_OK; /* the report has all of it */
    }
    if (r->i_side > 0 && !is_same_model(&r->sides[0], &r->sides[r->i_side])) {
        qn_model_close(&r->model); /* there may be no room for both */
    }
    if (r->model == NULL) {
        QN_TRY(status, open_model(r, false, err), fail);
    }
    note_info(&r->answers.infos[r->i_side], &r->sides[r->i_side], qn_model_get_info(r->model));
    ask_as(r);
    if (r->n_to_do > 0) {
        QN_TRY(status, answer_all(r, err), fail);
    }
    if (r->options->text != NULL) {
        QN_TRY(status, qn_text_read(&r->text, r->model, r->i_side, tell_text, r, err), fail);
    }
fail:
    return status;
}

static qn_status run_all(run *r, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, check_options(r, err), fail);
    QN_TRY(status, load_tasks(r, err), fail);
    for (r->i_side = 0; r->i_side < r->n_sides; r->i_side++) {
        QN_TRY(status, check_side(r, err), fail);
    }
    QN_TRY(status, open_report(r, err), fail);
    for (r->i_side = 0; r->i_side < r->n_sides; r->i_side++) {
        QN_TRY(status, run_side(r, err), fail);
    }
fail:
    return status;
}

/* How far it came, and how it goes on. */
static qn_status say_interrupted(const run *r, qn_error *err)
{
    unsigned long long n_done = 0;
    for (uint32_t i = 0; i < r->n_sides * r->set.n_problems; i++) {
        n_done += r->answers.outcomes[i / r->set.n_problems][i % r->set.n_problems].is_done;
    }
    return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                   "eval: interrupted after %llu of %llu answers, all%s expected (%s)", n_done,
                   (unsigned long long)r->n_sides * r->set.n_problems,
                   r->options->text != NULL ? " and the text" : "",
                   r->report.path == NULL     ? "with --report answers could be kept"
                   : r->options->text != NULL ? "--resume goes on, with the text anew"
                                              : "--resume goes on");
}

qn_status qn_eval(char **report, const qn_eval_side *sides, size_t n_sides,
                  const qn_eval_options *options, qn_error *err)
{
    run r = {.sides = sides, .options = options, .text = {.spool_fd = -1}, .report = {.fd = -1}};
    qn_error why = {0};
    *report = NULL;
    r.n_sides = n_sides < UINT32_MAX ? (uint32_t)n_sides : UINT32_MAX;
    qn_status status = run_all(&r, &why);
    if (status == QN_OK) {
        const qn_result_args args = {
            .sides = sides, .asking = &r.asking, .answers = &r.answers, .text = &r.text};
        status = qn_result_make(report, &args, &why);
    } else if (status == QN_E_CANCELLED && r.set.n_problems > 0) {
        status = say_interrupted(&r, &why);
    }
    qn_model_close(&r.model);
    qn_report_close(&r.report);
    qn_text_close(&r.text);
    for (uint32_t i = 0; i < QN_SIDES_MAX; i++) {
        free(r.answers.outcomes[i]);
    }
    qn_task_set_deinit(&r.set);
    if (status < 0 && err != NULL) {
        *err = why;
    }
    return status;
}
