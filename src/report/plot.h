/* SPDX-License-Identifier: Apache-2.0 */
/** @file plot.h  A plot: its points, and the SVG that gnuplot draws of them. */
#ifndef QN_REPORT_PLOT_H
#define QN_REPORT_PLOT_H
#include "base/buf.h"

enum { PLOT_SERIES_MAX = 12, PLOT_LABELS_MAX = 40, PLOT_LABEL_BYTES = 96 };

/** How a series is drawn. */
typedef enum plot_style {
    PLOT_LINE,
    PLOT_LINE_POINTS,
    PLOT_DASHED, /**< Line and points: of others than ours. */
    PLOT_POINTS,
    PLOT_STRUCK,   /**< Crosses on a faint line: of what is not valid. */
    PLOT_INTERVAL, /**< Points with low and high of x, at a row of the labels. */
} plot_style;

/** Colours by what they mean; the page's style has a light and a dark one of each, --p1 to --p9. */
typedef enum plot_color {
    PLOT_INK = 1, /**< Axes and their text. */
    PLOT_GRID,
    PLOT_BLUE,
    PLOT_ORANGE,
    PLOT_GREEN,
    PLOT_GREY,
    PLOT_RED,
    PLOT_PURPLE,
    PLOT_BROWN,
} plot_color;

/** One series. */
typedef struct plot_series {
    char name[PLOT_LABEL_BYTES]; /**< For the legend, which is not gnuplot's. */
    plot_style style;
    plot_color color;
    size_t n_points;
} plot_series;

/** A point; low and high are NaN but in PLOT_INTERVAL. */
typedef struct plot_point {
    double x, y, low, high;
    size_t i_series;
} plot_point;

/** Zero it, set the first members, then plot_init(). */
typedef struct plot {
    const char *title;             /**< The figure's caption; our own words, as below. */
    const char *x_label, *y_label; /**< With units; our own words. */
    bool is_log_y;                 /**< Logarithmic; plot_choose_log_y() sets it. */
    bool is_log_x;                 /**< The same of x. */
    bool is_free_x;                /**< The x axis need not begin at 0. */
    double mark_y;                 /**< A level that is marked; 0 or NaN: none. */
    const char *mark_name;         /**< What the level is, for the legend; NULL with none. */
    bool has_mark_x;               /**< So is mark_x. */
    double mark_x;                 /**< Where has_mark_x says so. */
    double y_max;                  /**< Of the axis; 0: as the points need. */
    plot_series series[PLOT_SERIES_MAX];
    size_t n_series;
    char labels[PLOT_LABELS_MAX][PLOT_LABEL_BYTES]; /**< Of rows, from the top: y is their place. */
    size_t n_labels; /**< Rows begun, also those that are left out. */
    qn_buf points;   /**< plot_point, in order. */
} plot;

/** No points yet. */
void plot_init(plot *p);
void plot_deinit(plot *p);

/** Begin a series; points belong to the last one begun.  One too many is left out. */
void plot_begin(plot *p, const char *name, plot_style style, plot_color color);

/** Add a point; one that is not finite is left out.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status plot_add(plot *p, double x, double y, qn_error *err);

/** Begin a row, of a plot whose y axis has labels: from the top.  One too many is left out. */
void plot_row(plot *p, const char *label);

/** A point of series @p i_series at the last row begun; an end of its interval may be NaN. */
QN_MUST_CHECK qn_status plot_add_at_row(plot *p, size_t i_series, double x, double low, double high,
                                        qn_error *err);

/** Make an axis logarithmic where its values, all above 0, are far apart. */
void plot_choose_log_x(plot *p);
void plot_choose_log_y(plot *p);

/** Point @p i, and how many there are. */
size_t plot_n_points(const plot *p);
plot_point plot_get(const plot *p, size_t i);

/**
 * Append the plot as an element <svg>, for inside of a page: colours are var(--pN), no ids but
 * those that begin with @p name.
 *
 * @param[out] why  why there is none: gnuplot missing, failed, or slow; "" where there is one
 * Returns  QN_OK, also where there is none; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status plot_draw(qn_buf *out, const plot *p, const char *name, char *why,
                                  size_t why_bytes, qn_error *err);
#endif
