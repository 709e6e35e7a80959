/* SPDX-License-Identifier: Apache-2.0 */
#include "format/checkpoint.h"
#include "format/safetensors_writer.h"
#include "scratch.h"
#include "support/fail_alloc.h"

#include <sys/mman.h>

#define INDEX    "model.safetensors.index.json"
#define U8(name) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}"

static void write_shard(const char *dir, const char *name, const char *header)
{
    size_t n_bytes = 0;
    uint8_t *const bytes = scratch_safetensors(header, 1, &n_bytes);
    scratch_write(dir, name, bytes, n_bytes);
    free(bytes);
}

static void test_the_model_in_the_tree_opens_whole(void **state)
{
    (void)state;
    qn_checkpoint *checkpoint = NULL;
    qn_error err = {0};
    assert_int_equal(qn_checkpoint_open(&checkpoint, QN_SOURCE_DIR "/models/glm-nano", &err),
                     QN_OK);
    uint64_t data_bytes = 0;
    for (size_t i = 0; i < qn_checkpoint_count(checkpoint); i++) {
        const qn_tensor *const tensor = qn_checkpoint_get(checkpoint, i);
        size_t at = SIZE_MAX;
        assert_ptr_equal(qn_checkpoint_find(checkpoint, tensor->name, &at), tensor);
        assert_int_equal(at, i);
        data_bytes += tensor->size_bytes;
    }
    assert_int_equal(data_bytes, 42570880); /* the index's total_size */
    assert_int_equal(qn_checkpoint_bytes(checkpoint), 14971568 + 14989976 + 12652904);
    const qn_tensor *const head = qn_checkpoint_find(checkpoint, qn_str_of("lm_head.weight"), NULL);
    assert_non_null(head);
    assert_int_equal(head->dtype, QN_DTYPE_BF16);
    assert_int_equal(head->shape[0], 6144);
    assert_int_equal(head->shape[1], 256);
    assert_string_equal(qn_checkpoint_file_of(checkpoint, head),
                        QN_SOURCE_DIR "/models/glm-nano/model-00001-of-00003.safetensors");
    assert_null(qn_checkpoint_find(checkpoint, qn_str_of("lm_head"), NULL));
    qn_checkpoint_close(&checkpoint);
    assert_null(checkpoint);
    qn_checkpoint_close(&checkpoint);
}

static void test_tensors_are_fetched_and_released(void **state)
{
    (void)state;
    qn_checkpoint *checkpoint = NULL;
    qn_pool *pool = NULL;
    qn_error err = {0};
    assert_int_equal(qn_checkpoint_open(&checkpoint, QN_SOURCE_DIR "/models/glm-nano", &err),
                     QN_OK);
    assert_int_equal(qn_pool_open(&pool, 3, &err), QN_OK);
    const qn_str name = qn_str_of("lm_head.weight");
    const qn_tensor *const tensor = qn_checkpoint_find(checkpoint, name, NULL);
    assert_non_null(tensor);
    const uint8_t last = tensor->data[tensor->size_bytes - 1];
    for (int i = 0; i < 2; i++) { /* what was released is there again */
        assert_int_equal(qn_checkpoint_fetch(checkpoint, tensor, pool, &err), QN_OK);
        qn_checkpoint_release(checkpoint, tensor);
        assert_int_equal(tensor->data[tensor->size_bytes - 1], last);
    }
    qn_pool_close(&pool);
    qn_checkpoint_close(&checkpoint);
}

/* A file that was whole when it was opened must not end the process with SIGBUS here. */
static void test_fetch_from_a_file_cut_short_is_an_error(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_checkpoint *checkpoint = NULL;
    qn_pool *pool = NULL;
    qn_error err = {0};
    size_t n_bytes = 0;
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    uint8_t *const bytes = scratch_safetensors(
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[3000000],\"data_offsets\":[0,3000000]}}", 3000000,
        &n_bytes);
    scratch_write(dir, "model.safetensors", bytes, n_bytes);
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_OK);
    assert_int_equal(qn_pool_open(&pool, 2, &err), QN_OK);
    assert_int_equal(truncate(path, 1000000), 0);
    void *const page = mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (madvise(page, 1, MADV_POPULATE_READ) != 0) {
        skip(); /* before Linux 5.14 nothing is read, and nothing noticed */
    }
    assert_int_equal(munmap(page, 1), 0);
    assert_int_equal(qn_checkpoint_fetch(checkpoint, qn_checkpoint_get(checkpoint, 0), pool, &err),
                     QN_E_IO);
    assert_non_null(strstr(err.text, "model.safetensors: bytes "));
    assert_non_null(strstr(err.text, "missing, a whole file expected"));
    qn_pool_close(&pool);
    qn_checkpoint_close(&checkpoint);
    free(bytes);
    scratch_remove(dir);
}

/* Shards a (tensor x) and b (tensor y) with @p weight_map, which must be refused. */
static void refuse_index(const char *weight_map, qn_status expected, const char *message)
{
    char dir[] = "/tmp/quern-test-XXXXXX";
    qn_checkpoint *checkpoint = NULL;
    qn_error err = {0};
    scratch_make(dir);
    write_shard(dir, "a.safetensors", "{" U8("x") "}");
    write_shard(dir, "b.safetensors", "{" U8("y") "}");
    scratch_write(dir, INDEX, weight_map, strlen(weight_map));
    const qn_status status = qn_checkpoint_open(&checkpoint, dir, &err);
    if (status != expected || strstr(err.text, message) == NULL) {
        fail_msg("%s: %s: %s, expected: %s", weight_map, qn_status_name(status), err.text, message);
    }
    assert_null(checkpoint);
    scratch_remove(dir);
}

#define MAP(entries) "{\"weight_map\": {" entries "}}"

static void test_index_and_shards_must_agree(void **state)
{
    (void)state;
    refuse_index("{", QN_E_FORMAT, INDEX ": line 1");
    refuse_index("{}", QN_E_FORMAT, INDEX ": weight_map: nothing, an object expected");
    refuse_index("[]", QN_E_FORMAT, "weight_map: nothing, an object expected");
    refuse_index("{\"weight_map\": []}", QN_E_FORMAT, "weight_map: a list, an object expected");
    refuse_index(MAP("\"x\": 3"), QN_E_FORMAT,
                 "weight_map: x: 3, a *.safetensors of the folder expected");
    refuse_index(MAP("\"x\": \"../a.safetensors\""), QN_E_FORMAT,
                 "a *.safetensors of the folder expected");
    refuse_index(MAP("\"x\": \"sub/a.safetensors\""), QN_E_FORMAT,
                 "a *.safetensors of the folder expected");
    refuse_index(MAP("\"x\": \"a.bin\""), QN_E_FORMAT,
                 "x: \"a.bin\", a *.safetensors of the folder expected");
    refuse_index(MAP("\"x\": \"\""), QN_E_FORMAT, "a *.safetensors of the folder expected");
    refuse_index(MAP("\"x\": \"a.safetensors\", \"y\": \"c.safetensors\""), QN_E_NOT_FOUND,
                 "/c.safetensors: no such file, a shard that ");
    refuse_index(MAP("\"x\": \"b.safetensors\", \"y\": \"a.safetensors\""), QN_E_FORMAT,
                 "tensor x: a.safetensors, in b.safetensors expected by weight_map");
    refuse_index(MAP("\"x\": \"a.safetensors\", \"z\": \"a.safetensors\""), QN_E_FORMAT,
                 "tensor z: in no shard, in a.safetensors expected by weight_map");
    refuse_index(MAP("\"x\": \"b.safetensors\""), QN_E_FORMAT, "tensor x: in no shard");
    refuse_index(MAP("\"x\": \"a.safetensors\", \"x\": \"a.safetensors\""), QN_E_FORMAT,
                 "a key that is not in the object already");
}

static void test_tensor_of_a_shard_that_the_index_lacks_is_named(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    qn_checkpoint *checkpoint = NULL;
    qn_error err = {0};
    static const char index[] = MAP("\"x\": \"a.safetensors\"");
    scratch_make(dir);
    write_shard(dir, "a.safetensors",
                "{" U8("x") ",\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    scratch_write(dir, INDEX, index, strlen(index));
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor w: not in weight_map"));
    scratch_remove(dir);
}

static void test_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    qn_checkpoint *checkpoint = NULL;
    qn_error err = {0};
    scratch_make(dir);
    write_shard(dir, "b.safetensors", "{" U8("x") "}");
    write_shard(dir, "a.safetensors", "{" U8("x") "}");
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_E_FORMAT);
    assert_non_null(
        strstr(err.text, "tensor x: in a.safetensors and in b.safetensors, one shard expected"));
    scratch_remove(dir);
}

static void test_without_index_one_file_or_all_are_opened(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    qn_checkpoint *checkpoint = NULL;
    qn_error err = {0};
    scratch_make(dir);
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, ": no weights, " INDEX " or *.safetensors expected"));
    write_shard(dir, "b.safetensors", "{" U8("y") "}");
    write_shard(dir, "a.safetensors", "{" U8("x") "}");
    scratch_write(dir, "notes.txt", "x", 1);
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_OK);
    assert_int_equal(qn_checkpoint_count(checkpoint), 2);
    assert_string_equal(qn_checkpoint_get(checkpoint, 0)->name.ptr, "x");
    qn_checkpoint_close(&checkpoint);
    write_shard(dir, "model.safetensors", "{" U8("y") "}");
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_OK);
    assert_int_equal(qn_checkpoint_count(checkpoint), 1);
    qn_checkpoint_close(&checkpoint);
    scratch_remove(dir);
    assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "a model's folder expected"));
}

static void test_rows_written_interleaved_are_read_back(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_error err = {0};
    qn_safetensors_writer *writer = NULL;
    static const uint64_t three[] = {3};
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/out.safetensors", dir);
    assert_int_equal(qn_safetensors_writer_open(&writer, path, &err), QN_OK);
    for (int64_t i = 0; i < 100; i++) {
        const float row[] = {(float)i, 0.5F, -1.0F};
        assert_int_equal(
            qn_safetensors_writer_append(writer, "logits", QN_DTYPE_F32, three, 1, row, 1, &err),
            QN_OK);
        assert_int_equal(
            qn_safetensors_writer_append(writer, "ids", QN_DTYPE_I64, NULL, 0, &i, 1, &err), QN_OK);
    }
    assert_int_equal(
        qn_safetensors_writer_append(writer, "none", QN_DTYPE_U8, three, 1, "", 0, &err), QN_OK);
    assert_int_equal(
        qn_safetensors_writer_append(writer, "ids", QN_DTYPE_I32, NULL, 0, "", 0, &err),
        QN_E_INVAL);
    assert_non_null(strstr(err.text, "tensor ids: rows of another dtype or shape"));
    assert_int_not_equal(access(path, F_OK), 0); /* no name before it is finished */
    assert_int_equal(qn_safetensors_writer_finish(writer, &err), QN_OK);
    qn_safetensors_writer_close(&writer);
    assert_null(writer);
    assert_int_equal(scratch_count(dir), 1);

    qn_safetensors *file = NULL;
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_OK);
    assert_int_equal(qn_safetensors_count(file), 3);
    const qn_tensor *const ids = qn_safetensors_get(file, 0);
    const qn_tensor *const logits = qn_safetensors_get(file, 1);
    assert_int_equal((uintptr_t)ids->data % 8, 0);
    assert_int_equal(logits->rank, 2);
    assert_int_equal(logits->shape[0], 100);
    assert_int_equal(logits->shape[1], 3);
    for (int64_t i = 0; i < 100; i++) {
        const float row[] = {(float)i, 0.5F, -1.0F};
        assert_memory_equal(ids->data + 8 * i, &i, 8);
        assert_memory_equal(logits->data + 12 * i, row, 12);
    }
    assert_int_equal(qn_safetensors_get(file, 2)->shape[0], 0);
    qn_safetensors_close(&file);
    scratch_remove(dir);
}

static void test_unfinished_or_unwritable_file_leaves_nothing(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_error err = {0};
    qn_safetensors_writer *writer = NULL;
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/out.safetensors", dir);
    assert_int_equal(qn_safetensors_writer_open(&writer, path, &err), QN_OK);
    assert_int_equal(
        qn_safetensors_writer_append(writer, "\xff", QN_DTYPE_U8, NULL, 0, "a", 1, &err), QN_OK);
    assert_int_equal(qn_safetensors_writer_finish(writer, &err), QN_E_NOMEM);
    qn_safetensors_writer_close(&writer);
    assert_int_equal(scratch_count(dir), 0);
    scratch_remove(dir);
    assert_int_equal(qn_safetensors_writer_open(&writer, path, &err), QN_E_IO);
    assert_null(writer);
    assert_non_null(strstr(err.text, "cannot write: No such file or directory"));
}

static void test_row_that_cannot_be_described_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_error err = {0};
    qn_safetensors_writer *writer = NULL;
    static const uint64_t ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const uint64_t huge[2] = {1ULL << 40, 1ULL << 40};
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/out.safetensors", dir);
    assert_int_equal(qn_safetensors_writer_open(&writer, path, &err), QN_OK);
    assert_int_equal(qn_safetensors_writer_append(writer, "t", QN_DTYPE_U8, ones, 8, "a", 1, &err),
                     QN_E_INVAL);
    assert_int_equal(qn_safetensors_writer_append(writer, "t", QN_DTYPE_U8, huge, 2, "a", 1, &err),
                     QN_E_INVAL);
    qn_safetensors_writer_close(&writer);
    scratch_remove(dir);
}

#ifndef QN_CANNOT_FAIL_ALLOCATIONS
static int g_names_left = -1; /* of a folder, until its disk fails; -1: it does not */

QN_EVERYWHERE struct dirent *readdir(DIR *folder); /* NOLINT */
QN_EVERYWHERE struct dirent *readdir(DIR *folder)  /* NOLINT */
{
    static struct dirent *(*next)(DIR *);
    if (next == NULL) {
        next_symbol("readdir", &next, sizeof next);
    }
    if (g_names_left == 0) {
        errno = EIO;
        return NULL;
    }
    g_names_left -= g_names_left > 0 ? 1 : 0;
    return next(folder);
}
#endif

/* It was once taken for the folder's end: some of the shards for all of them. */
static void test_folder_that_cannot_be_listed_to_its_end_is_refused(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#else
    char dir[] = "/tmp/quern-test-XXXXXX";
    scratch_make(dir);
    write_shard(dir, "a.safetensors", "{" U8("a") "}");
    write_shard(dir, "b.safetensors", "{" U8("b") "}");
    for (int n_names = 0; n_names < 5; n_names++) { /* two shards, "." and "..", and the end */
        qn_checkpoint *checkpoint = NULL;
        qn_error err = {0};
        g_names_left = n_names;
        assert_int_equal(qn_checkpoint_open(&checkpoint, dir, &err), QN_E_IO);
        g_names_left = -1;
        assert_null(checkpoint);
        assert_non_null(strstr(err.text, dir));
    }
    scratch_remove(dir);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_in_the_tree_opens_whole),
        cmocka_unit_test(test_tensors_are_fetched_and_released),
        cmocka_unit_test(test_fetch_from_a_file_cut_short_is_an_error),
        cmocka_unit_test(test_index_and_shards_must_agree),
        cmocka_unit_test(test_tensor_of_a_shard_that_the_index_lacks_is_named),
        cmocka_unit_test(test_tensor_in_two_shards_is_refused),
        cmocka_unit_test(test_without_index_one_file_or_all_are_opened),
        cmocka_unit_test(test_rows_written_interleaved_are_read_back),
        cmocka_unit_test(test_unfinished_or_unwritable_file_leaves_nothing),
        cmocka_unit_test(test_row_that_cannot_be_described_is_refused),
        cmocka_unit_test(test_folder_that_cannot_be_listed_to_its_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
