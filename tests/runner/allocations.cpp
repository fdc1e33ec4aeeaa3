// Whose memory a warm handle takes: counts allocations while it answers, told apart by the library that asks for them.
//
//   allocations RUNTIME BUNDLE JPEG PNG FRAMES
//
// Prints: allocations by the runner's own code, those by others, and bytes that the process grew over the frames.
#include <dlfcn.h>
#include <edgetl.h>
#include <execinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

extern "C" void *__libc_malloc(size_t bytes);
extern "C" void *__libc_calloc(size_t count, size_t bytes);
extern "C" void *__libc_realloc(void *memory, size_t bytes);
extern "C" void *__libc_memalign(size_t alignment, size_t bytes);

namespace {

thread_local bool watched = false;
long own = 0, others = 0;

// The first frame that is neither this program's, nor of the C and C++ libraries, decides.
void count() {
  if (!watched) return;
  watched = false;
  void *frames[24];
  const int depth = backtrace(frames, 24);
  bool ours = false;
  for (int i = 0; i < depth; i++) {
    Dl_info from{};
    if (dladdr(frames[i], &from) == 0 || from.dli_fname == nullptr) continue;
    if (std::strstr(from.dli_fname, "libedgetl.so") != nullptr) ours = true;
    else if (std::strstr(from.dli_fname, "libstdc++") != nullptr || std::strstr(from.dli_fname, "libc.so") != nullptr ||
             std::strstr(from.dli_fname, "/allocations") != nullptr)
      continue;
    break;
  }
  (ours ? own : others)++;
  watched = true;
}

long resident() {
  long all = 0, held = 0;
  if (std::FILE *file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%ld %ld", &all, &held) != 2) held = 0;
    std::fclose(file);
  }
  return held * sysconf(_SC_PAGESIZE);
}

[[noreturn]] void stop(const etl_model *model) {
  std::fprintf(stderr, "%s\n", etl_error(model));
  std::exit(1);
}

std::vector<char> content(const char *path) {
  std::vector<char> data(1 << 20);
  std::FILE *file = std::fopen(path, "rb");
  if (file == nullptr) std::exit(2);
  data.resize(std::fread(data.data(), 1, data.size(), file));
  std::fclose(file);
  return data;
}

}  // namespace

extern "C" void *malloc(size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
extern "C" void *calloc(size_t number, size_t bytes) {
  count();
  return __libc_calloc(number, bytes);
}
extern "C" void *realloc(void *memory, size_t bytes) {
  count();
  return __libc_realloc(memory, bytes);
}
extern "C" void *aligned_alloc(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}

int main(int, char **words) {
  etl_options options{};
  options.size = sizeof options;
  options.threads = 1;
  options.runtime_library = words[1];
  etl_model *model = nullptr;
  if (etl_open(words[2], &options, &model) != ETL_OK) stop(nullptr);
  const std::vector<char> jpeg = content(words[3]), png = content(words[4]);
  const int frames = std::atoi(words[5]);
  etl_info info{};
  info.size = sizeof info;
  if (etl_describe(model, &info) != ETL_OK) stop(model);
  std::vector<uint8_t> rgb(50 * 40 * 3, 90), input(static_cast<size_t>(info.height) * info.width * info.channels);
  std::vector<etl_answer> items(static_cast<size_t>(info.labels + info.tasks));
  const etl_tensor tensor{nullptr, input.data(), input.size()};
  const auto frame = [&] {
    etl_answers answers{sizeof answers, 0, items.data(), items.size(), 0};
    float values[64];
    size_t count = 0;
    if (etl_run_file(model, words[3], &answers) != ETL_OK || etl_run_file(model, words[4], &answers) != ETL_OK ||
        etl_run_encoded(model, jpeg.data(), jpeg.size(), &answers) != ETL_OK ||
        etl_run_encoded(model, png.data(), png.size(), &answers) != ETL_OK ||
        etl_run_rgb(model, rgb.data(), 50, 40, 150, &answers) != ETL_OK ||
        etl_preprocess(model, jpeg.data(), jpeg.size(), input.data(), input.size()) != ETL_OK ||
        etl_run_tensor(model, &tensor, 1, &answers) != ETL_OK || etl_outputs(model, 0, values, 64, &count) != ETL_OK)
      stop(model);
  };
  void *first[4];
  (void)backtrace(first, 4);
  for (int i = 0; i < frames / 4 + 4; i++) frame();
  watched = true;
  for (int i = 0; i < 20; i++) frame();
  watched = false;
  const long before = resident();
  for (int i = 0; i < frames; i++) frame();
  std::printf("%ld %ld %ld\n", own, others, resident() - before);
  etl_close(model);
  return 0;
}
