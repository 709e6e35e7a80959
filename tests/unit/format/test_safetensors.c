/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "format/safetensors_header.h"
#include "scratch.h"

static qn_status open_header(qn_safetensors **out, const char *header, size_t data_bytes,
                             uint8_t **bytes, qn_error *err)
{
    size_t n_bytes = 0;
    *bytes = scratch_safetensors(header, data_bytes, &n_bytes);
    return qn_safetensors_open_bytes(out, *bytes, n_bytes, "F", err);
}

static void test_tensors_come_in_order_of_name_with_their_bytes(void **state)
{
    (void)state;
    qn_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    qn_error err = {0};
    assert_int_equal(
        open_header(&file,
                    "{\"__metadata__\":{\"format\":\"pt\"},"
                    "\"z\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
                    "\"none\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[8,8]},"
                    "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}  ",
                    9, &bytes, &err),
        QN_OK);
    assert_int_equal(qn_safetensors_count(file), 3);
    const qn_tensor *const a = qn_safetensors_get(file, 0);
    const qn_tensor *const none = qn_safetensors_get(file, 1);
    const qn_tensor *const z = qn_safetensors_get(file, 2);
    assert_string_equal(a->name.ptr, "a");
    assert_int_equal(a->rank, 0);
    assert_int_equal(a->size_bytes, 1);
    assert_int_equal(a->data[0], 8);
    assert_string_equal(none->name.ptr, "none");
    assert_int_equal(none->size_bytes, 0);
    assert_int_equal(none->shape[1], 7);
    assert_int_equal(z->dtype, QN_DTYPE_F32);
    assert_int_equal(z->rank, 2);
    assert_int_equal(z->shape[0], 1);
    assert_int_equal(z->shape[1], 2);
    assert_int_equal(z->size_bytes, 8);
    assert_int_equal(z->data[7], 7);
    const qn_str head = qn_safetensors_head(file);
    assert_ptr_equal(head.ptr, bytes);
    assert_ptr_equal(head.ptr + head.len, z->data); /* the first tensor's */
    qn_safetensors_close(&file);
    assert_null(file);
    qn_safetensors_close(&file);
    free(bytes);
}

static void test_every_dtype_is_read_by_its_name(void **state)
{
    (void)state;
    for (int i = QN_DTYPE_F32; i <= QN_DTYPE_BOOL; i++) {
        char header[200];
        qn_safetensors *file = NULL;
        uint8_t *bytes = NULL;
        qn_error err = {0};
        const uint32_t size_bytes = qn_dtype_bytes((qn_dtype)i);
        (void)snprintf(header, sizeof header,
                       "{\"t\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%u]}}",
                       qn_dtype_name((qn_dtype)i), size_bytes);
        assert_int_equal(open_header(&file, header, size_bytes, &bytes, &err), QN_OK);
        assert_int_equal(qn_safetensors_get(file, 0)->dtype, i);
        qn_safetensors_close(&file);
        free(bytes);
    }
}

static void refuse(const char *header, size_t data_bytes, const char *message)
{
    qn_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    qn_error err = {0};
    const qn_status status = open_header(&file, header, data_bytes, &bytes, &err);
    if (status != QN_E_FORMAT || strstr(err.text, message) == NULL) {
        fail_msg("%s: %s: %s, expected: %s", header, qn_status_name(status), err.text, message);
    }
    assert_null(file);
    assert_memory_equal(err.text, "F: ", 3);
    free(bytes);
}

#define T(fields) "{\"t\":{" fields "}}"

static void test_every_bad_field_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *message;
    } cases[] = {
        {"[]", 0, "header: a list, an object expected"},
        {"{", 0, "F: header: line 1, column 2: the end"},
        {"{\"t\":{},\"t\":{}}", 0, "a key that is not in the object already"},
        {"{\"__metadata__\":3}", 0, "__metadata__: 3, an object expected"},
        {"{\"__metadata__\":{\"k\":3}}", 0, "__metadata__: k: 3, a string expected"},
        {"{\"t\":4}", 0, "F: tensor t: 4, an object expected"},
        {T("\"shape\":[1],\"data_offsets\":[0,1]"), 1, "tensor t: dtype: nothing, a string"},
        {T("\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]"), 1, "dtype: 7, a string expected"},
        {T("\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]"), 1, "dtype: F4, one of F32"},
        {T("\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1,
         "shape: nothing, a list of at most 8 expected"},
        {T("\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]"), 1, "shape: 1, a list"},
        {T("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
         "shape: a list of 9, at most 8"},
        {T("\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]"), 1,
         "shape[0]: -1, an integer"},
        {T("\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]"), 1, "shape[0]: 1.5, an"},
        {T("\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]"), 1, "shape[0]: 1.0, an"},
        {T("\"dtype\":\"U8\",\"shape\":[1,\"2\"],\"data_offsets\":[0,1]"), 1, "shape[1]: \"2\""},
        {T("\"dtype\":\"F64\",\"shape\":[4294967296,536870912],\"data_offsets\":[0,0]"), 0,
         "shape[1]: 536870912 makes 2^64 bytes or more"},
        {T("\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,1]"), 1,
         "data_offsets: 1 bytes, 9223372036854775807 expected"},
        {T("\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,1]"), 1,
         "shape[0]: 99999999999999999999, an integer from 0 expected"},
        {T("\"dtype\":\"U8\",\"shape\":[1]"), 1, "data_offsets: nothing, [begin, end]"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]"), 1, "data_offsets: a list of 1"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]"), 1, "a list of 3"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]"), 1,
         "data_offsets: [0, 1.0], 0 <= begin <= end"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]"), 1, "[-1, 0], 0 <= begin"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]"), 1, "[1, 0], 0 <= begin"},
        {T("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 1,
         "[0, 2], 0 <= begin <= end"},
        {T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,7]"), 7, "7 bytes, 8 expected"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":0"), 1, "4 fields"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]"), 2,
         "begins at 1, after a hole; 0, where tensor - ends, expected"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"), 2,
         "F: 2 bytes of data, 1 expected by the header"},
        {"{}", 3, "F: 3 bytes of data, 0 expected by the header"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "tensor b: data_offsets: begins at 1, an overlap; 2, where tensor a ends, expected"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
         3, "tensor b: data_offsets: begins at 2, after a hole; 1, where tensor a ends, expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        refuse(cases[i].header, cases[i].data_bytes, cases[i].message);
    }
}

/* Faults told, as one letter each and the tensor: "E:a O:b ". */
static void take_fault(void *context, qn_header_fault fault, qn_str tensor, const char *message)
{
    char *const told = context;
    const size_t len = strlen(told);
    assert_non_null(strstr(message, "F: "));
    (void)snprintf(told + len, 200 - len, "%c:%.*s ", "MEDOR"[fault], (int)tensor.len, tensor.ptr);
}

#define U8_AT(name, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[" begin "," end "]}"

static void test_every_fault_of_a_header_is_told_and_the_rest_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *header, *told;
        size_t n_tensors;
    } cases[] = {
        {"{" U8_AT("a", "0", "2") "," U8_AT("b", "2", "4") "}", "", 2},
        {"{\"__metadata__\":1,\"x\":{}," U8_AT("a", "0", "2") ",\"y\":7}", "M: E:x E:y ", 1},
        {"{\"x\":{\"dtype\":\"U99\"}," U8_AT("a", "0", "2") "}", "D:x ", 1},
        {"{" U8_AT("a", "0", "2") "," U8_AT("b", "1", "3") "," U8_AT("c", "9", "11") "}",
         "O:b O:c ", 3},
        {"{" U8_AT("a", "0", "3") "," U8_AT("b", "7", "2") "}", "O:a O:b ", 2},
        {"{" U8_AT("a", "2", "4") "," U8_AT("b", "0", "2") "," U8_AT("a", "4", "6") "}", "R:a ", 2},
        {"{" U8_AT("a", "0", "18446744073709551615") "}", "O:a ", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char told[200] = "";
        qn_safetensors_header header;
        qn_error err = {0};
        assert_int_equal(qn_safetensors_header_open(&header, qn_str_of(cases[i].header), UINT64_MAX,
                                                    "F", take_fault, told, &err),
                         QN_OK);
        assert_string_equal(told, cases[i].told);
        assert_int_equal(header.n_tensors, cases[i].n_tensors);
        assert_int_equal(header.is_sound, cases[i].told[0] == '\0');
        qn_safetensors_header_close(&header);
        qn_safetensors_header_close(&header);
    }
}

static void test_bad_header_length_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[12];
        size_t n_bytes;
        const char *message;
    } cases[] = {
        {{0}, 0, "F: 0 bytes, a header length of 8 bytes expected"},
        {{2}, 7, "F: 7 bytes, a header length of 8 bytes expected"},
        {{5}, 12, "F: header length: 5, at most 4 expected"},
        {{0, 0, 0, 0, 0, 0, 0, 0x80}, 12, "header length: 9223372036854775808, at most 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_safetensors *file = NULL;
        qn_error err = {0};
        uint8_t *const bytes = malloc(cases[i].n_bytes + 1);
        assert_non_null(bytes);
        memcpy(bytes, cases[i].bytes, cases[i].n_bytes);
        assert_int_equal(qn_safetensors_open_bytes(&file, bytes, cases[i].n_bytes, "F", &err),
                         QN_E_FORMAT);
        assert_null(file);
        assert_non_null(strstr(err.text, cases[i].message));
        free(bytes);
    }
}

static void test_every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    size_t n_bytes = 0;
    uint8_t *const bytes = scratch_safetensors(
        T("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]"), 4, &n_bytes);
    for (size_t n = 0; n < n_bytes; n++) {
        qn_safetensors *file = NULL;
        qn_error err = {0};
        uint8_t *const cut = malloc(n + 1);
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        assert_int_equal(qn_safetensors_open_bytes(&file, cut, n, "F", &err), QN_E_FORMAT);
        free(cut);
    }
    free(bytes);
}

static void test_files_that_cannot_be_mapped_are_named(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_safetensors *file = NULL;
    qn_error err = {0};
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/x", dir);
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    scratch_write(dir, "x", "", 0);
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "/x: 0 bytes, a file with contents expected"));
    assert_int_equal(qn_safetensors_open(&file, dir, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "a regular file expected"));
    scratch_write(dir, "x", "12345678", 8);
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_E_FORMAT);
    assert_null(file);
    scratch_remove(dir);
}

/* As many tensors as the FP8 checkpoint has in all its files; a quadratic reader would need
 * minutes, which the test runner's time limit catches. */
static void test_120000_tensors_are_read(void **state)
{
    (void)state;
    enum { N_TENSORS = 120000 };
    qn_buf header;
    qn_error err = {0};
    qn_buf_init(&header, (size_t)1 << 26);
    for (int i = 0; i < N_TENSORS; i++) {
        const int at = (i * 7919) % N_TENSORS; /* offsets in another order than names */
        assert_int_equal(
            qn_buf_append_printf(&header, &err,
                                 "%s\"model.layers.%d.mlp.experts.%d.weight_scale_inv\":"
                                 "{\"dtype\":\"BF16\",\"shape\":[1,1],\"data_offsets\":[%d,%d]}",
                                 i == 0 ? "{" : ",", i % 79, i, 2 * at, 2 * at + 2),
            QN_OK);
    }
    assert_int_equal(qn_buf_append(&header, "}", 1, &err), QN_OK);
    qn_safetensors *file = NULL;
    uint8_t *bytes = NULL;
    const uint64_t begin_ns = qn_clock_ns();
    assert_int_equal(open_header(&file, header.ptr, (size_t)2 * N_TENSORS, &bytes, &err), QN_OK);
    print_message("%d tensors: %.0f ms\n", N_TENSORS, (double)(qn_clock_ns() - begin_ns) * 1e-6);
    assert_int_equal(qn_safetensors_count(file), N_TENSORS);
    for (size_t i = 1; i < N_TENSORS; i++) {
        assert_true(qn_str_compare(qn_safetensors_get(file, i - 1)->name,
                                   qn_safetensors_get(file, i)->name) < 0);
    }
    qn_safetensors_close(&file);
    free(bytes);
    qn_buf_deinit(&header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_come_in_order_of_name_with_their_bytes),
        cmocka_unit_test(test_every_dtype_is_read_by_its_name),
        cmocka_unit_test(test_every_bad_field_is_refused_by_name),
        cmocka_unit_test(test_every_fault_of_a_header_is_told_and_the_rest_is_read),
        cmocka_unit_test(test_bad_header_length_is_refused),
        cmocka_unit_test(test_every_cut_of_a_file_is_refused),
        cmocka_unit_test(test_files_that_cannot_be_mapped_are_named),
        cmocka_unit_test(test_120000_tensors_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
