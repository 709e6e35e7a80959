/* SPDX-License-Identifier: Apache-2.0 */
#include "report/sheet.h"

#include "report/style.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum { SHEET_BYTES_MAX = 1 << 27, TEXT_BYTES_MAX = 1 << 20, TABLE_POINTS_MAX = 40 };

void sheet_try(sheet *s, qn_status status)
{
    if (s->status == QN_OK && status < 0) {
        s->status = status;
    }
}

/* Markup as it is. */
static void raw(sheet *s, const char *markup)
{
    if (s->status == QN_OK) {
        s->status = qn_buf_append(&s->out, markup, strlen(markup), s->err);
    }
}

QN_PRINTF(2, 3) static void rawf(sheet *s, const char *format, ...)
{
    char markup[512];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(markup, sizeof markup, format, args);
    va_end(args);
    if (s->status == QN_OK) {
        s->status = qn_buf_append(&s->out, markup,
                                  n > 0 && (size_t)n < sizeof markup ? (size_t)n : 0, s->err);
    }
}

void sheet_html(sheet *s, const char *markup)
{
    if (s->is_html) {
        raw(s, markup);
    }
}

void sheet_markdown(sheet *s, const char *markup)
{
    if (!s->is_html) {
        raw(s, markup);
    }
}

/* ----------------------------------------------------------------------------------------- text */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* What stands for a character; NULL: itself. */
static const char *html_of(char c)
{
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return ((unsigned char)c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? "?" : NULL;
    }
}

/* In Markdown a text is one line; an underscore within a word is one. */
static const char *markdown_of(const char *at, bool is_first)
{
    const char c = *at;
    static const char special[] = "\\`*[]|~";
    static const char *const escaped[] = {"\\\\", "\\`", "\\*", "\\[", "\\]", "\\|", "\\~"};
    const char *const found = c != '\0' ? strchr(special, c) : NULL;
    if (found != NULL) {
        return escaped[found - special];
    }
    if (c == '_') {
        return !is_first && is_word(at[-1]) && is_word(at[1]) ? NULL : "\\_";
    }
    return c == '\n' || c == '\t' ? " " : c == '"' || c == '\'' ? NULL : html_of(c);
}

static void append_escaped(sheet *s, const char *text)
{
    const char *from = text;
    for (const char *at = text; s->status == QN_OK; at++) {
        const char *const instead = *at == '\0'  ? ""
                                    : s->is_html ? html_of(*at)
                                                 : markdown_of(at, at == text);
        if (instead != NULL) {
            s->status = qn_buf_append(&s->out, from, (size_t)(at - from), s->err);
            raw(s, instead);
            from = at + 1;
        }
        if (*at == '\0') {
            break;
        }
    }
}

QN_PRINTF(2, 0) static void append_text(sheet *s, const char *format, va_list args)
{
    qn_buf text;
    va_list again;
    char some[256];
    if (s->status < 0) {
        return;
    }
    va_copy(again, args);
    const int n = vsnprintf(some, sizeof some, format, args);
    if (n >= 0 && (size_t)n < sizeof some) {
        append_escaped(s, some);
    } else if (n > 0) {
        qn_buf_init(&text, TEXT_BYTES_MAX);
        s->status = qn_buf_reserve(&text, (size_t)n + 1, s->err);
        if (s->status == QN_OK) {
            (void)vsnprintf(text.ptr, (size_t)n + 1, format, again);
            append_escaped(s, text.ptr);
        }
        qn_buf_deinit(&text);
    }
    va_end(again);
}

/* Append the arguments behind @p last of the function it stands in. */
#define TEXT_OF(s, format)                                                                         \
    do {                                                                                           \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        append_text(s, format, args);                                                              \
        va_end(args);                                                                              \
    } while (0)

void sheet_text(sheet *s, const char *format, ...)
{
    TEXT_OF(s, format);
}

void sheet_link(sheet *s, const char *text, const char *address)
{
    const bool is_link = address != NULL && (strncmp(address, "https://", 8) == 0 ||
                                             strncmp(address, "http://", 7) == 0);
    if (is_link && s->is_html) {
        raw(s, "<a href=\"");
        append_escaped(s, address);
        raw(s, "\" rel=\"noopener noreferrer\">");
        append_escaped(s, text);
        raw(s, "</a>");
        return;
    }
    append_escaped(s, text);
    if (address != NULL && address[0] != '\0' && strcmp(address, text) != 0) {
        sheet_text(s, " (%s)", address);
    }
}

/* ---------------------------------------------------------------------------------------- blocks
 */

static const char *tone_name(sheet_tone tone)
{
    static const char *const names[] = {"plain", "good", "warn", "bad"};
    return names[tone];
}

void sheet_open(sheet *s, bool is_html, const char *title, qn_error *err)
{
    *s = (sheet){.is_html = is_html, .err = err};
    qn_buf_init(&s->out, SHEET_BYTES_MAX);
    if (is_html) {
        raw(s, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
               "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
        append_escaped(s, title);
        raw(s, "</title>\n<style>\n");
        for (size_t i = 0; report_style[i] != NULL; i++) {
            raw(s, report_style[i]);
        }
        raw(s, "</style>\n</head>\n<body>\n<main>\n");
    }
}

void sheet_end(sheet *s)
{
    sheet_html(s, "</main>\n</body>\n</html>\n");
}

void sheet_close(sheet *s)
{
    qn_buf_deinit(&s->out);
}

void sheet_title(sheet *s, const char *title, const char *below)
{
    raw(s, s->is_html ? "<h1>" : "# ");
    append_escaped(s, title);
    raw(s, s->is_html ? "</h1>\n<p class=\"below\">" : "\n\n");
    append_escaped(s, below);
    raw(s, s->is_html ? "</p>\n" : "\n\n");
}

void sheet_badges(sheet *s)
{
    sheet_html(s, "<ul class=\"badges\">");
    s->i_cell = 0;
}

void sheet_badge(sheet *s, sheet_tone tone, const char *format, ...)
{
    if (s->is_html) {
        rawf(s, "<li class=\"%s\">", tone_name(tone));
    } else {
        raw(s, s->i_cell > 0 ? ", **" : "**");
    }
    TEXT_OF(s, format);
    raw(s, s->is_html ? "</li>" : "**");
    s->i_cell++;
}

void sheet_badges_end(sheet *s)
{
    raw(s, s->is_html ? "</ul>\n" : "\n\n");
}

void sheet_box(sheet *s, sheet_tone tone, const char *bold, const char *format, ...)
{
    if (s->is_html) {
        rawf(s, "<p class=\"box %s\"><strong>", tone_name(tone));
    } else {
        raw(s, "> **");
    }
    append_escaped(s, bold);
    raw(s, s->is_html ? "</strong> " : "** ");
    TEXT_OF(s, format);
    raw(s, s->is_html ? "</p>\n" : "\n\n");
}

void sheet_facts(sheet *s)
{
    sheet_html(s, "<dl class=\"facts\">\n");
}

void sheet_fact(sheet *s, const char *name, const char *format, ...)
{
    raw(s, s->is_html ? "<div><dt>" : "* ");
    append_escaped(s, name);
    raw(s, s->is_html ? "</dt><dd>" : ": ");
    TEXT_OF(s, format);
    raw(s, s->is_html ? "</dd></div>\n" : "\n");
}

void sheet_facts_end(sheet *s)
{
    raw(s, s->is_html ? "</dl>\n" : "\n");
}

void sheet_command(sheet *s, const char *line)
{
    raw(s, s->is_html ? "<p class=\"command\"><code>" : "    ");
    if (s->is_html) {
        append_escaped(s, line);
    } else { /* code: all stands as it is, but on one line */
        for (const char *at = line; *at != '\0'; at++) {
            const char c[] = {*at, '\0'};
            raw(s, (unsigned char)*at < 0x20 ? " " : c);
        }
    }
    raw(s, s->is_html ? "</code></p>\n" : "\n\n");
}

void sheet_tiles(sheet *s)
{
    sheet_html(s, "<div class=\"tiles\">\n");
}

void sheet_tile(sheet *s, const char *value, const char *what, const char *below)
{
    raw(s, s->is_html ? "<div class=\"tile\"><span class=\"what\">" : "* ");
    append_escaped(s, what);
    raw(s, s->is_html ? "</span><span class=\"figure\">" : ": **");
    append_escaped(s, value);
    raw(s, s->is_html ? "</span><span class=\"note\">" : below[0] != '\0' ? "**, " : "**");
    append_escaped(s, below);
    raw(s, s->is_html ? "</span></div>\n" : "\n");
}

void sheet_tiles_end(sheet *s)
{
    raw(s, s->is_html ? "</div>\n" : "\n");
}

void sheet_section(sheet *s, const char *heading)
{
    raw(s, s->is_html ? "<h2>" : "## ");
    append_escaped(s, heading);
    raw(s, s->is_html ? "</h2>\n" : "\n\n");
}

void sheet_paragraph(sheet *s, const char *format, ...)
{
    sheet_html(s, "<p>");
    TEXT_OF(s, format);
    raw(s, s->is_html ? "</p>\n" : "\n\n");
}

void sheet_answer(sheet *s, sheet_tone tone, const char *state, const char *question,
                  const char *format, ...)
{
    raw(s, s->is_html ? "<div class=\"answer\"><h3>" : "* **");
    append_escaped(s, question);
    if (s->is_html) {
        rawf(s, " <span class=\"%s\">", tone_name(tone));
        append_escaped(s, state);
        raw(s, "</span></h3><p>");
    } else {
        raw(s, "** *(");
        append_escaped(s, state);
        raw(s, ")* ");
    }
    TEXT_OF(s, format);
    raw(s, s->is_html ? "</p></div>\n" : "\n");
}

void sheet_folded(sheet *s, const char *heading, const char *text)
{
    if (s->is_html) {
        raw(s, "<details><summary>");
        append_escaped(s, heading);
        raw(s, "</summary><pre>");
        append_escaped(s, text);
        raw(s, "</pre></details>\n");
    }
}

/* ---------------------------------------------------------------------------------------- tables
 */

void sheet_table(sheet *s, const char *caption, const sheet_column *columns, size_t n_columns)
{
    if (caption != NULL) {
        sheet_html(s, "<p class=\"caption\">");
        append_escaped(s, caption);
        raw(s, s->is_html ? "</p>\n" : "\n\n");
    }
    sheet_html(s, "<div class=\"scroll\" role=\"region\" "
                  "aria-label=\"Table\" tabindex=\"0\"><table>\n");
    raw(s, s->is_html ? "<thead><tr>" : "|");
    for (size_t i = 0; i < n_columns; i++) {
        sheet_html(s, columns[i].is_text ? "<th scope=\"col\" class=\"t\">" : "<th scope=\"col\">");
        sheet_markdown(s, " ");
        append_escaped(s, columns[i].name);
        if (columns[i].unit != NULL) {
            raw(s, s->is_html ? "<small>" : ", ");
            append_escaped(s, columns[i].unit);
            sheet_html(s, "</small>");
        }
        raw(s, s->is_html ? "</th>" : " |");
    }
    raw(s, s->is_html ? "</tr></thead>\n<tbody>\n" : "\n|");
    for (size_t i = 0; i < n_columns; i++) {
        sheet_markdown(s, columns[i].is_text ? "---|" : "---:|");
    }
    sheet_markdown(s, "\n");
    s->has_row = false;
    s->columns = columns;
    s->n_columns = n_columns;
}

static void end_row(sheet *s)
{
    if (s->has_row) {
        raw(s, s->is_html ? "</tr>\n" : "\n");
    }
    s->has_row = false;
}

void sheet_row(sheet *s, sheet_tone tone)
{
    end_row(s);
    if (s->is_html) {
        rawf(s, "<tr class=\"%s\">", tone_name(tone));
    } else {
        raw(s, "|");
    }
    s->has_row = true;
    s->i_cell = 0;
}

/* The first of a row is its header. */
static void begin_cell(sheet *s)
{
    const bool is_text = s->i_cell < s->n_columns && s->columns[s->i_cell].is_text;
    raw(s, !s->is_html      ? " "
           : s->i_cell == 0 ? "<th scope=\"row\">"
           : is_text        ? "<td class=\"t\">"
                            : "<td>");
}

static void end_cell(sheet *s)
{
    raw(s, !s->is_html ? " |" : s->i_cell == 0 ? "</th>" : "</td>");
    s->i_cell++;
}

void sheet_cell(sheet *s, const char *format, ...)
{
    begin_cell(s);
    TEXT_OF(s, format);
    end_cell(s);
}

void sheet_number(sheet *s, double value)
{
    sheet_cell(s, "%s", figure_of(value).text);
}

void sheet_cell_link(sheet *s, const char *text, const char *address)
{
    begin_cell(s);
    sheet_link(s, text, address);
    end_cell(s);
}

void sheet_table_end(sheet *s)
{
    end_row(s);
    raw(s, s->is_html ? "</tbody></table></div>\n" : "\n");
}

/* ----------------------------------------------------------------------------------------- plots
 */

void sheet_plots(sheet *s)
{
    sheet_html(s, "<div class=\"plots\">\n");
}

void sheet_plots_end(sheet *s)
{
    sheet_html(s, "</div>\n");
}

static void write_legend(sheet *s, const plot *p)
{
    static const char *const marks[] = {
        [PLOT_LINE] = "line",  [PLOT_LINE_POINTS] = "line", [PLOT_DASHED] = "dash",
        [PLOT_POINTS] = "dot", [PLOT_STRUCK] = "struck",    [PLOT_INTERVAL] = "dot"};
    raw(s, "<ul class=\"legend\">");
    for (size_t i = 0; i < p->n_series && i < PLOT_SERIES_MAX; i++) {
        if (p->series[i].n_points > 0 && p->series[i].name[0] != '\0') {
            rawf(s, "<li><i class=\"%s\" style=\"color:var(--p%d)\"></i>",
                 marks[p->series[i].style], (int)p->series[i].color);
            append_escaped(s, p->series[i].name);
            raw(s, "</li>");
        }
    }
    if (p->mark_y > 0.0 && p->mark_name != NULL) {
        raw(s, "<li><i class=\"dash\" style=\"color:var(--p7)\"></i>");
        append_escaped(s, p->mark_name);
        raw(s, "</li>");
    }
    raw(s, "</ul>");
}

/* Each as a row, of many every n-th. */
static void write_points(sheet *s, const plot *p)
{
    const sheet_column columns[] = {{"series", NULL, true},
                                    {p->n_labels > 0 ? "row" : p->x_label, NULL, true},
                                    {p->n_labels > 0 ? p->x_label : p->y_label, NULL, false}};
    const size_t stride = plot_n_points(p) / TABLE_POINTS_MAX + 1;
    sheet_table(s, NULL, columns, 3);
    for (size_t i = 0; i < plot_n_points(p); i += stride) {
        const plot_point point = plot_get(p, i);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", p->series[point.i_series].name);
        if (p->n_labels > 0) {
            sheet_cell(s, "%s", p->labels[(size_t)point.y]);
            sheet_number(s, point.x);
        } else {
            sheet_number(s, point.x);
            sheet_number(s, point.y);
        }
    }
    sheet_table_end(s);
}

void sheet_plot(sheet *s, plot *p)
{
    char name[16];
    if (s->is_html && plot_n_points(p) > 0 && s->status == QN_OK) {
        (void)snprintf(name, sizeof name, "plot%u", ++s->n_plots);
        rawf(s, "<figure class=\"%s\"><figcaption>", p->n_labels > 0 ? "wide" : "half");
        append_escaped(s, p->title);
        raw(s, "</figcaption>");
        if (s->no_plot == NULL && s->status == QN_OK) {
            s->status = plot_draw(&s->out, p, name, s->why, sizeof s->why, s->err);
        }
        if (s->why[0] != '\0') {
            s->no_plot = s->why; /* of the others too: a slow one is not waited for again */
            sheet_text(s, "Not drawn: %s. Its points:", s->why);
            write_points(s, p);
        } else {
            write_legend(s, p);
            raw(s, "<details><summary>Points</summary>");
            write_points(s, p);
            raw(s, "</details>");
        }
        raw(s, "</figure>\n");
    }
    plot_deinit(p);
}
