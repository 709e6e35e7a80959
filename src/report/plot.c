/* SPDX-License-Identifier: Apache-2.0 */
#include "report/plot.h"

#include "base/try.h"
#include "report/gnuplot.h"

#include <math.h>
#include <stdio.h>

enum {
    POINTS_BYTES_MAX = 1 << 26,
    SCRIPT_BYTES_MAX = 1 << 26,
    SVG_BYTES_MAX = 1 << 24,
    WIDTH = 560,
    WIDTH_ROWS = 740,
    HEIGHT = 340,
    ROW_HEIGHT = 30,
    FONT_SIZE = 14,
    N_DIGITS = 9,
    DRAWN_MAX = 600, /* Points of a series: a plot is no wider. */
    LOG_RATIO = 20,
};

/* Of the height of a row that its series take. */
static const double row_share = 0.5;

void plot_init(plot *p)
{
    qn_buf_init(&p->points, POINTS_BYTES_MAX);
    p->n_series = 0;
    p->n_labels = 0;
}

void plot_deinit(plot *p)
{
    qn_buf_deinit(&p->points);
}

void plot_begin(plot *p, const char *name, plot_style style, plot_color color)
{
    if (p->n_series < PLOT_SERIES_MAX) {
        plot_series *const series = &p->series[p->n_series];
        *series = (plot_series){.style = style, .color = color};
        (void)snprintf(series->name, sizeof series->name, "%s", name);
        qn_text_clean(series->name); /* it may have been cut within a character */
    }
    p->n_series += p->n_series <= PLOT_SERIES_MAX ? 1 : 0;
}

static qn_status add(plot *p, const plot_point *point, qn_error *err)
{
    if (!isfinite(point->x) || !isfinite(point->y) || point->i_series >= PLOT_SERIES_MAX) {
        return QN_OK;
    }
    p->series[point->i_series].n_points++;
    return qn_buf_append(&p->points, point, sizeof *point, err);
}

qn_status plot_add(plot *p, double x, double y, qn_error *err)
{
    const plot_point point = {x, y, (double)NAN, (double)NAN, p->n_series - 1};
    return add(p, &point, err);
}

void plot_row(plot *p, const char *label)
{
    if (p->n_labels < PLOT_LABELS_MAX) {
        char *const name = p->labels[p->n_labels];
        (void)snprintf(name, PLOT_LABEL_BYTES, "%s", label);
        qn_text_clean(name);
    }
    p->n_labels++;
}

qn_status plot_add_at_row(plot *p, size_t i_series, double x, double low, double high,
                          qn_error *err)
{
    const double row = (double)p->n_labels - 1.0;
    const plot_point point = {x, row, isfinite(low) ? low : x, isfinite(high) ? high : x, i_series};
    return p->n_labels > PLOT_LABELS_MAX ? QN_OK : add(p, &point, err);
}

size_t plot_n_points(const plot *p)
{
    return p->points.len / sizeof(plot_point);
}

plot_point plot_get(const plot *p, size_t i)
{
    plot_point point;
    memcpy(&point, p->points.ptr + i * sizeof point, sizeof point);
    return point;
}

static bool are_far_apart(const plot *p, bool is_x)
{
    double low = (double)INFINITY;
    double high = 0.0;
    for (size_t i = 0; i < plot_n_points(p); i++) {
        const plot_point point = plot_get(p, i);
        low = fmin(low, is_x ? point.x : point.y);
        high = fmax(high, is_x ? point.x : point.y);
    }
    return low > 0.0 && high > LOG_RATIO * low;
}

void plot_choose_log_x(plot *p)
{
    p->is_log_x = are_far_apart(p, true);
}

void plot_choose_log_y(plot *p)
{
    p->is_log_y = are_far_apart(p, false);
}

/* --------------------------------------------------------------------------------------- script */

static size_t n_rows(const plot *p)
{
    return p->n_labels < PLOT_LABELS_MAX ? p->n_labels : PLOT_LABELS_MAX;
}

static size_t n_series(const plot *p)
{
    return p->n_series < PLOT_SERIES_MAX ? p->n_series : PLOT_SERIES_MAX;
}

/* Text of a result that gnuplot is to write: nothing that could end its quotes, or be markup. */
static void clean_label(char *text)
{
    for (char *at = text; *at != '\0'; at++) {
        if (strchr("'\"\\<>&`%@{}", *at) != NULL) {
            *at = ' ';
        }
    }
}

static qn_status append_labels(qn_buf *out, const plot *p, qn_error *err)
{
    qn_status status = qn_buf_append_printf(out, err, "set ytics out nomirror (");
    for (size_t i = 0; i < n_rows(p) && status == QN_OK; i++) {
        char label[PLOT_LABEL_BYTES];
        memcpy(label, p->labels[i], sizeof label);
        clean_label(label);
        status = qn_buf_append_printf(out, err, "%s'%s' %zu", i > 0 ? ", " : "", label, i);
    }
    return status < 0
               ? status
               : qn_buf_append_printf(out, err,
                                      ") tc rgb '#010101'\nset yrange [%zu.6:-0.6]\n"
                                      "set grid noytics xtics lt 1 lw 0.5 lc rgb '#010102'\n",
                                      n_rows(p) - 1);
}

/* Everything but the points.  Colours are #0101NN, which become var(--pNN). */
static qn_status append_settings(qn_buf *out, const plot *p, qn_error *err)
{
    const size_t height = p->n_labels > 0 ? 80 + ROW_HEIGHT * n_rows(p) : HEIGHT;
    qn_status status = QN_OK;
    QN_TRY(
        status,
        qn_buf_append_printf(out, err,
                             "set encoding utf8\n"
                             "set terminal svg size %d,%zu dynamic noenhanced font 'sans,%d'\n"
                             "set border 3 lw 1 lc rgb '#010101'\nset key off\n"
                             "set tics out nomirror scale 0.4 tc rgb '#010101'\n"
                             "set grid noxtics ytics lt 1 lw 0.5 lc rgb '#010102'\n"
                             "set xlabel '%s' tc rgb '#010101'\nset ylabel '%s' tc rgb '#010101'\n",
                             p->n_labels > 0 ? WIDTH_ROWS : WIDTH, height, FONT_SIZE, p->x_label,
                             p->y_label != NULL ? p->y_label : ""),
        fail);
    if (p->is_log_y) {
        QN_TRY(status, qn_buf_append_printf(out, err, "set logscale y\nset format y '%%g'\n"),
               fail);
    } else if (p->y_max > 0.0) {
        QN_TRY(status, qn_buf_append_printf(out, err, "set yrange [0:%g]\n", p->y_max), fail);
    } else {
        QN_TRY(status, qn_buf_append_printf(out, err, "set yrange [0:*]\n"), fail);
    }
    if (p->is_log_x) {
        QN_TRY(status, qn_buf_append_printf(out, err, "set logscale x\nset format x '%%g'\n"),
               fail);
    } else if (!p->is_free_x) {
        QN_TRY(status, qn_buf_append_printf(out, err, "set xrange [0:*]\n"), fail);
    }
    if (p->n_labels > 0) {
        QN_TRY(status, append_labels(out, p, err), fail);
    }
    if (p->has_mark_x) {
        QN_TRY(status,
               qn_buf_append_printf(out, err,
                                    "set arrow from first %g,graph 0 to first %g,graph 1 nohead "
                                    "lw 1.2 dt 2 lc rgb '#010107'\n",
                                    p->mark_x, p->mark_x),
               fail);
    }
    if (p->mark_y > 0.0) {
        QN_TRY(status,
               qn_buf_append_printf(out, err,
                                    "set arrow from graph 0,first %g to graph 1,first %g nohead "
                                    "lw 1.2 dt 2 lc rgb '#010107'\n",
                                    p->mark_y, p->mark_y),
               fail);
    }
fail:
    return status;
}

static qn_status append_reals(qn_buf *out, const double *values, size_t n, qn_error *err)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < n; i++) {
        QN_TRY(status, qn_buf_append_real(out, values[i], N_DIGITS, err), fail);
        QN_TRY(status, qn_buf_append(out, i + 1 < n ? " " : "\n", 1, err), fail);
    }
fail:
    return status;
}

/* Series of the same row stand below each other, around its middle. */
static double offset_of(const plot *p, size_t i_series)
{
    const double n = (double)n_series(p);
    return row_share * ((double)i_series - (n - 1.0) / 2.0) / n;
}

/* $sN << E ... E: the points of a series, thinned out where there are more than could be seen. */
static qn_status append_points(qn_buf *out, const plot *p, size_t i_series, qn_error *err)
{
    const size_t stride = p->series[i_series].n_points / DRAWN_MAX + 1;
    size_t i_point = 0;
    qn_status status = qn_buf_append_printf(out, err, "$s%zu << E\n", i_series);
    for (size_t i = 0; i < plot_n_points(p) && status == QN_OK; i++) {
        const plot_point point = plot_get(p, i);
        const bool is_interval = p->series[i_series].style == PLOT_INTERVAL;
        const double offset = is_interval ? offset_of(p, i_series) : 0.0;
        const double values[] = {point.x, point.y + offset, point.low, point.high};
        if (point.i_series != i_series || i_point++ % stride != 0) {
            continue;
        }
        status = append_reals(out, values, is_interval ? 4 : 2, err);
    }
    return status < 0 ? status : qn_buf_append_printf(out, err, "E\n");
}

static qn_status append_plot(qn_buf *out, const plot *p, qn_error *err)
{
    static const char *const styles[] = {
        [PLOT_LINE] = "with lines lw 2",
        [PLOT_LINE_POINTS] = "with linespoints lw 2.2 pt 7 ps 0.7",
        [PLOT_DASHED] = "with linespoints lw 1.4 dt 2 pt 6 ps 0.7",
        [PLOT_POINTS] = "with points pt 7 ps 0.8",
        [PLOT_STRUCK] = "with linespoints lw 1 dt 3 pt 2 ps 0.9",
        [PLOT_INTERVAL] = "using 1:2:3:4 with xerrorbars lw 2 pt 7 ps 0.8",
    };
    const char *lead = "plot ";
    qn_status status = QN_OK;
    for (size_t i = 0; i < n_series(p) && status == QN_OK; i++) {
        if (p->series[i].n_points > 0) {
            status =
                qn_buf_append_printf(out, err, "%s$s%zu %s lc rgb '#0101%02x' notitle", lead, i,
                                     styles[p->series[i].style], (unsigned)p->series[i].color);
            lead = ", ";
        }
    }
    return status < 0 ? status : qn_buf_append_printf(out, err, "\n");
}

/* ------------------------------------------------------------------------------------------ svg */

/* Where @p part begins at or behind @p from; the end where it does not. */
static const char *find(const char *from, const char *end, const char *part)
{
    const char *const found = memmem(from, (size_t)(end - from), part, strlen(part));
    return found != NULL ? found : end;
}

/* What is another in a page: how gnuplot writes it, how much of that stays as it is.  An id follows
 * what is kept. */
typedef struct change {
    const char *seen;
    size_t n_kept;
} change;

/* Ids become this plot's own, colours by number become colours by name, and titles that are but ids
 * are left out. */
static const change changes[] = {
    {"'gp", 1}, {"'#gp", 2}, {"\"gnuplot", 1}, {"rgb(", 0}, {"<title>gnuplot_", 0}};

static const change *change_at(const char *at)
{
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        if (strncmp(at, changes[i].seen, strlen(changes[i].seen)) == 0) {
            return &changes[i];
        }
    }
    return NULL;
}

/* Append what stands instead of what is at @p at; *next is behind it. */
static qn_status append_change(qn_buf *out, const change *c, const char *at, const char **next,
                               const char *name, qn_error *err)
{
    int color = 0;
    int n = 0;
    *next = at + strlen(c->seen);
    if (c->n_kept > 0) {
        const qn_status status = qn_buf_append(out, at, c->n_kept, err);
        return status < 0 ? status : qn_buf_append_printf(out, err, "%s", name);
    }
    if (sscanf(at, "rgb(%*d,%*d,%d)%n", &color, &n) == 1 && n > 0) {
        *next = at + n;
        return qn_buf_append_printf(out, err, "var(--p%d)", color);
    }
    *next += strcspn(*next, ">") + 1;
    return QN_OK;
}

static qn_status append_inner(qn_buf *out, const char *from, const char *end, const char *name,
                              qn_error *err)
{
    qn_status status = QN_OK;
    for (const char *at = from; at < end;) {
        const change *const c = change_at(at);
        if (c == NULL) {
            at++;
            continue;
        }
        QN_TRY(status, qn_buf_append(out, from, (size_t)(at - from), err), fail);
        QN_TRY(status, append_change(out, c, at, &from, name, err), fail);
        from = from < end ? from : end; /* of a gnuplot that wrote something else */
        at = from;
    }
    QN_TRY(status, qn_buf_append(out, from, (size_t)(end - from), err), fail);
fail:
    return status;
}

/* The definitions that are used, those of points, then what was drawn; its last </g> ends a group
 * that gnuplot begins before them. */
static qn_status append_svg(qn_buf *out, qn_str svg, const plot *p, const char *name, qn_error *err)
{
    static const char filter[] = "<filter";
    const char *const end = svg.ptr + svg.len;
    const char *const box = find(svg.ptr, end, "viewBox=");
    const char *const defs = find(svg.ptr, end, "<defs>");
    const char *const filters = find(defs, end, filter);
    const char *const body = find(filters, end, "</defs>");
    const char *const last = find(body, end, "</svg>");
    qn_status status = QN_OK;
    const size_t box_len = strcspn(box, "\n");
    QN_TRY(status,
           qn_buf_append_printf(out, err,
                                "<svg xmlns=\"http://www.w3.org/2000/svg\" "
                                "xmlns:xlink=\"http://www.w3.org/1999/xlink\" %.*s role=\"img\" "
                                "aria-labelledby=\"%s-title\"><title id=\"%s-title\">%s</title><g>",
                                (int)box_len, box, name, name, p->title),
           fail);
    QN_TRY(status, append_inner(out, defs, filters, name, err), fail);
    QN_TRY(status, append_inner(out, body, last, name, err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, "</svg>"), fail);
fail:
    return status;
}

qn_status plot_draw(qn_buf *out, const plot *p, const char *name, char *why, size_t why_bytes,
                    qn_error *err)
{
    const size_t len_before = out->len;
    qn_status status = QN_OK;
    qn_buf script;
    qn_buf svg;
    qn_buf_init(&script, SCRIPT_BYTES_MAX);
    qn_buf_init(&svg, SVG_BYTES_MAX);
    why[0] = '\0';
    QN_TRY(status, append_settings(&script, p, err), fail);
    for (size_t i = 0; i < n_series(p); i++) {
        QN_TRY(status, append_points(&script, p, i, err), fail);
    }
    QN_TRY(status, append_plot(&script, p, err), fail);
    QN_TRY(status, gnuplot_run(&svg, qn_buf_view(&script), why, why_bytes, err), fail);
    if (why[0] == '\0' && (svg.len == 0 || !qn_str_contains(qn_buf_view(&svg), "</svg>") ||
                           !qn_str_contains(qn_buf_view(&svg), "<defs>"))) {
        (void)snprintf(why, why_bytes, "gnuplot drew nothing");
    }
    if (why[0] == '\0') {
        QN_TRY(status, append_svg(out, qn_buf_view(&svg), p, name, err), fail);
    }
fail:
    if (status < 0 && out->ptr != NULL) {
        out->len = len_before;
        out->ptr[len_before] = '\0';
    }
    qn_buf_deinit(&script);
    qn_buf_deinit(&svg);
    return status;
}
