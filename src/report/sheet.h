/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sheet.h  What a report is written on: one writer of headings, tables and plots for HTML and
 * for Markdown.
 *
 * All text is escaped here and nowhere else.  A failure stays in the sheet, and what is written
 * after it is lost, so that a report is written without looking.
 */
#ifndef QN_REPORT_SHEET_H
#define QN_REPORT_SHEET_H
#include "base/buf.h"
#include "report/figure.h"
#include "report/plot.h"

/** How a fact is to be taken. */
typedef enum sheet_tone {
    SHEET_PLAIN,
    SHEET_GOOD, /**< Measured, valid. */
    SHEET_WARN, /**< To be known before a figure is used. */
    SHEET_BAD,  /**< A figure that is not to be used; what is not measured. */
} sheet_tone;

/** A column of a table. */
typedef struct sheet_column {
    const char *name;
    const char *unit; /**< NULL: none. */
    bool is_text;     /**< Aligned left. */
} sheet_column;

/** A report that is being written. */
typedef struct sheet {
    qn_buf out; /**< Owned. */
    qn_error *err;
    qn_status status; /**< Of the first failure. */
    bool is_html;
    uint32_t n_plots;
    size_t i_cell;               /**< In the present row. */
    const sheet_column *columns; /**< [n_columns] of the present table; borrowed. */
    size_t n_columns;
    bool has_row;        /**< A row is open. */
    const char *no_plot; /**< Why there are no plots; NULL: there are. */
    char why[64];
} sheet;

/** Begin; @p title is the page's, for the browser. */
void sheet_open(sheet *s, bool is_html, const char *title, qn_error *err);
/** End.  Then s->out is whole if s->status is QN_OK. */
void sheet_end(sheet *s);
void sheet_close(sheet *s);

/** Text in the middle of something. */
QN_PRINTF(2, 3) void sheet_text(sheet *s, const char *format, ...);
/** Markup as it is, in HTML or in Markdown only. */
void sheet_html(sheet *s, const char *markup);
void sheet_markdown(sheet *s, const char *markup);
/** Text that leads to an address, where that is one of the web; else both as text. */
void sheet_link(sheet *s, const char *text, const char *address);

/** The title block: a large title, a line below. */
void sheet_title(sheet *s, const char *title, const char *below);
/** Small labels below the title. */
void sheet_badges(sheet *s);
QN_PRINTF(3, 4) void sheet_badge(sheet *s, sheet_tone tone, const char *format, ...);
void sheet_badges_end(sheet *s);
/** A box across the page: a word in bold, a text. */
QN_PRINTF(4, 5)
void sheet_box(sheet *s, sheet_tone tone, const char *bold, const char *format, ...);

/** Names with what they are. */
void sheet_facts(sheet *s);
QN_PRINTF(3, 4) void sheet_fact(sheet *s, const char *name, const char *format, ...);
void sheet_facts_end(sheet *s);

/** A line as somebody typed it. */
void sheet_command(sheet *s, const char *line);

/** Large figures, each with what it is and a line below (may be ""). */
void sheet_tiles(sheet *s);
void sheet_tile(sheet *s, const char *value, const char *what, const char *below);
void sheet_tiles_end(sheet *s);

/** A heading; sections do not nest. */
void sheet_section(sheet *s, const char *heading);
QN_PRINTF(2, 3) void sheet_paragraph(sheet *s, const char *format, ...);

/** A table: rows of cells, as many as columns, which are borrowed until its end.  @p caption may be
 * NULL. */
void sheet_table(sheet *s, const char *caption, const sheet_column *columns, size_t n_columns);
/** @p tone other than SHEET_PLAIN marks the row. */
void sheet_row(sheet *s, sheet_tone tone);
QN_PRINTF(2, 3) void sheet_cell(sheet *s, const char *format, ...);
void sheet_number(sheet *s, double value); /**< figure_of() */
void sheet_cell_link(sheet *s, const char *text, const char *address);
void sheet_table_end(sheet *s);

/** A question and its answer; @p state is a word, "measured". */
QN_PRINTF(5, 6)
void sheet_answer(sheet *s, sheet_tone tone, const char *state, const char *question,
                  const char *format, ...);

/** Plots stand between these, two beside each other where there is room. */
void sheet_plots(sheet *s);
void sheet_plots_end(sheet *s);
/** Draw a plot and release its points.  One without points is left out, and so are all in Markdown.
 * Where gnuplot does not draw it: its points in a table. */
void sheet_plot(sheet *s, plot *p);
/** The first failure of what was asked for on the way, such as plot_add(). */
void sheet_try(sheet *s, qn_status status);

/** JSON or other text as it is, folded away; not in Markdown. */
void sheet_folded(sheet *s, const char *heading, const char *text);
#endif
