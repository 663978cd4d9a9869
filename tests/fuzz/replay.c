/* Runs a fuzz target without libFuzzer: once on each file of the folders given, each in a block of exactly its size so that a sanitizer sees
 * every byte too far. Linked to any LLVMFuzzerTestOneInput; fails when a folder is missing or holds no file, so that a lost corpus is noticed. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { REPLAY_FILE_MAX = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int replay_file(const char *path, size_t bytes)
{
	uint8_t *data = malloc(bytes ? bytes : 1);
	FILE *file = fopen(path, "rb");
	int bad = !data || !file || fread(data, 1, bytes, file) != bytes;
	if (bad)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	else
		LLVMFuzzerTestOneInput(data, bytes);
	if (file)
		fclose(file);
	free(data);
	return bad;
}

/* @return files run, or -1 */
static long replay_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	if (!dir) {
		fprintf(stderr, "%s: %s\n", folder, strerror(errno));
		return -1;
	}
	long files = 0;
	for (struct dirent *entry; files >= 0 && (entry = readdir(dir));) {
		char path[4096];
		struct stat st;
		if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path) || stat(path, &st) || !S_ISREG(st.st_mode))
			continue;
		if (st.st_size > REPLAY_FILE_MAX || replay_file(path, (size_t)st.st_size))
			files = -1;
		else
			files++;
	}
	closedir(dir);
	return files;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s FOLDER ...\n", argv[0]);
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		long files = replay_folder(argv[i]);
		if (files <= 0) {
			fprintf(stderr, "%s: %s\n", argv[i], files ? "not readable" : "no file in it");
			return 1;
		}
		printf("%s: %ld files\n", argv[i], files);
	}
	return 0;
}
