// Signature, manifest and hashes of a bundle: nothing is parsed before its bytes are known to be the ones that were meant.
#include "bundle.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>

#include <nlohmann/json.hpp>

namespace etl {
namespace {

using Json = nlohmann::json;
using Hashes = std::map<std::string, std::string>;

constexpr char context[] = "edgetl bundle signature 1\n";
constexpr uint64_t most_json = 16 << 20, most_file = uint64_t{4} << 30;
constexpr int deepest = 64;
constexpr int64_t longest_side = 1 << 16, most_pixels = 1 << 26;
constexpr size_t most_tasks = 256;
const std::string statement_name = "signature.json", signature_name = "signature.sig", manifest_name = "manifest.json";
const std::string again = ": export it again or copy it whole";

struct Digest {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state{EVP_MD_CTX_new(), EVP_MD_CTX_free};
  Digest() {
    if (!state || EVP_DigestInit_ex(state.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  }
  void add(const void *data, size_t bytes) { EVP_DigestUpdate(state.get(), data, bytes); }
  std::string text() {
    static constexpr char digits[] = "0123456789abcdef";
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    EVP_DigestFinal_ex(state.get(), value, &length);
    std::string shown;
    for (unsigned int i = 0; i < length; i++) {
      shown += digits[value[i] >> 4];
      shown += digits[value[i] & 15];
    }
    return shown;
  }
};

// --- names and files ---

// As edgetl/base/names.py: relative, and each part stands for itself on every system.
const char *objection(const std::string &name) {
  if (name.empty()) return "is no name";
  if (name.front() == '/') return "is absolute";
  if (name.size() > 1024) return "is too long";
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || std::strchr("\\:*?\"<>|", c) != nullptr)
      return "holds characters that are not to be used";
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (part == "..") return "leads out of the folder";
    if (part.empty() || part == ".") return "holds parts that are empty or '.'";
    if (part.size() > 255) return "is too long";
    begin = end + 1;
  }
  return nullptr;
}

// The path of a bundle's file; refuses links on the way. "" where there is none.
std::string below(const std::string &folder, const std::string &name, etl_status status) {
  if (const char *why = objection(name)) fail(status, folder + ": the name '" + name.substr(0, 100) + "' " + why);
  for (size_t end = 0; end != std::string::npos;) {
    end = name.find('/', end + 1);
    struct stat found{};
    const std::string path = folder + "/" + name.substr(0, end);
    if (lstat(path.c_str(), &found) != 0) return "";
    if (S_ISLNK(found.st_mode)) fail(status, folder + ": the name '" + name.substr(0, 100) + "' leads through a link");
    if (end == std::string::npos && !S_ISREG(found.st_mode)) return "";
  }
  return folder + "/" + name;
}

struct OpenFile {
  int number;
  ~OpenFile() {
    if (number >= 0) close(number);
  }
};

struct Held {
  std::string sha256, content;
  uint64_t bytes = 0;
};

// Hash a file in pieces; keep it only where it is wanted, so that what is used is what was hashed.
Held hashed(const std::string &path, bool keep, etl_status status) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail(status, "cannot read " + path);
  Digest digest;
  Held held;
  std::vector<char> piece(1 << 18);
  while (stream.read(piece.data(), static_cast<std::streamsize>(piece.size())), stream.gcount() > 0) {
    const auto got = static_cast<size_t>(stream.gcount());
    digest.add(piece.data(), got);
    if (keep) held.content.append(piece.data(), got);
    held.bytes += got;
    if (held.bytes > most_file) fail(status, path + " is too large");
  }
  held.sha256 = digest.text();
  return held;
}

// --- JSON ---

void check_depth(const std::string &text, const std::string &name) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') i++;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > deepest) fail(ETL_BUNDLE, name + " is nested too deep");
    } else if (c == '}' || c == ']') {
      depth--;
    }
  }
}

Json parsed(const std::string &text, const std::string &name) {
  if (text.size() > most_json) fail(ETL_BUNDLE, name + " is too large");
  check_depth(text, name);
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) fail(ETL_BUNDLE, name + " is not whole JSON: export the bundle again");
  return value;
}

[[noreturn]] void malformed(const std::string &name, const std::string &field) {
  fail(ETL_BUNDLE, name + ": " + field + " is missing or of another kind: export the bundle again");
}

std::string text_of(const Json &record, const char *field, const std::string &name) {
  const auto found = record.is_object() ? record.find(field) : record.end();
  if (!record.is_object() || found == record.end() || !found->is_string()) malformed(name, field);
  return found->get<std::string>();
}

int64_t number_of(const Json &record, const char *field, const std::string &name) {
  const auto found = record.is_object() ? record.find(field) : record.end();
  if (!record.is_object() || found == record.end() || !found->is_number_integer()) malformed(name, field);
  return found->get<int64_t>();
}

// --- signature ---

bool is_signed(const uint8_t *key, const std::string &message, const std::string &signature) {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> public_key{
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key, 32), EVP_PKEY_free};
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state{EVP_MD_CTX_new(), EVP_MD_CTX_free};
  return public_key && state && signature.size() == 64 &&
         EVP_DigestVerifyInit(state.get(), nullptr, nullptr, nullptr, public_key.get()) == 1 &&
         EVP_DigestVerify(state.get(), reinterpret_cast<const unsigned char *>(signature.data()), signature.size(),
                          reinterpret_cast<const unsigned char *>(message.data()), message.size()) == 1;
}

struct CloseFolder {
  void operator()(DIR *folder) const { closedir(folder); }
};

void list_files(const std::string &folder, const std::string &prefix, std::set<std::string> &found, int depth = 0) {
  std::unique_ptr<DIR, CloseFolder> entries{opendir((folder + "/" + prefix).c_str())};
  if (!entries || depth > deepest) fail(ETL_SIGNATURE, "cannot list " + folder + "/" + prefix);
  while (const dirent *entry = readdir(entries.get())) {
    const std::string own = entry->d_name, name = prefix + own;
    if (own == "." || own == "..") continue;
    struct stat kind{};
    if (lstat((folder + "/" + name).c_str(), &kind) != 0) fail(ETL_SIGNATURE, "cannot read " + folder + "/" + name);
    if (S_ISDIR(kind.st_mode)) list_files(folder, name + "/", found, depth + 1);
    else if (!S_ISREG(kind.st_mode)) fail(ETL_SIGNATURE, folder + ": " + name + " is no file: remove it");
    else if (name != statement_name && name != signature_name) found.insert(name);
  }
}

std::string whole(const std::string &folder, const std::string &name) {
  const std::string path = below(folder, name, ETL_SIGNATURE);
  if (path.empty()) fail(ETL_SIGNATURE, folder + " is not signed: sign it, or take one that is");
  std::string content;
  read_file(path.c_str(), most_json, ETL_SIGNATURE, content);
  return content;
}

// What was signed, name → SHA-256; exactly the files that are there. Their content is not looked at here.
Hashes signed_hashes(const std::string &folder, const uint8_t *key) {
  const std::string statement = whole(folder, statement_name), signature = whole(folder, signature_name);
  if (!is_signed(key, context + statement, signature))
    fail(ETL_SIGNATURE, folder + " is not signed by that key, or its signature was altered");
  const Json record = parsed(statement, statement_name);
  if (!record.is_object() || record.value("schema", Json()) != 1 || !record.value("files", Json()).is_object())
    malformed(statement_name, "files");
  Hashes hashes;
  for (const auto &[name, hash] : record["files"].items()) {
    if (!hash.is_string()) malformed(statement_name, name);
    hashes[name] = hash.get<std::string>();
  }
  if (hashes.empty()) malformed(statement_name, "files");
  std::set<std::string> there;
  list_files(folder, "", there);
  for (const std::string &name : there)
    if (hashes.count(name) == 0) fail(ETL_SIGNATURE, folder + ": " + name + " is not among what was signed");
  for (const auto &[name, hash] : hashes)
    if (there.count(name) == 0) fail(ETL_SIGNATURE, folder + " lacks " + name + ", which was signed");
  return hashes;
}

void check_signed(const Hashes &hashes, const std::string &name, const std::string &hash) {
  const auto found = hashes.find(name);
  if (!hashes.empty() && (found == hashes.end() || found->second != hash))
    fail(ETL_SIGNATURE, name + " is not what was signed");
}

// --- manifest ---

// The bytes without what makes them readable, and without the digest: what the digest is of.
std::string canonical(const std::string &text) {
  static const std::string field = "\n \"digest\": \"";
  const size_t at = text.find(field), end = at == std::string::npos ? at : text.find('\n', at + 1);
  if (end == std::string::npos) malformed(manifest_name, "digest");
  const std::string rest = text.substr(0, at) + text.substr(end);
  std::string kept;
  kept.reserve(rest.size());
  bool quoted = false;
  for (size_t i = 0; i < rest.size(); i++) {
    const char c = rest[i];
    if (!quoted && (c == ' ' || c == '\n')) continue;
    kept += c;
    if (quoted && c == '\\' && i + 1 < rest.size()) kept += rest[++i];
    else if (c == '"') quoted = !quoted;
  }
  return kept;
}

// As Python's json writes it with an indent of one; a manifest is exactly that, so that every byte counts.
std::string indented(const std::string &compact) {
  std::string text;
  text.reserve(2 * compact.size());
  size_t depth = 0;
  bool quoted = false;
  const auto line = [&] { text.append(1, '\n').append(depth, ' '); };
  for (size_t i = 0; i < compact.size(); i++) {
    const char c = compact[i];
    if (quoted) {
      text += c;
      if (c == '\\' && i + 1 < compact.size()) text += compact[++i];
      else if (c == '"') quoted = false;
      continue;
    }
    const char next = i + 1 < compact.size() ? compact[i + 1] : '\0';
    const bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
    if (closes && depth > 0) {
      depth--;
      line();
    }
    text += c;
    if (opens && (next == '}' || next == ']')) {
      text += next;
      i++;
    } else if (opens) {
      depth++;
      line();
    } else if (c == ',') {
      line();
    } else if (c == ':') {
      text += ' ';
    } else if (c == '"') {
      quoted = true;
    }
  }
  return text + "\n";
}

Json read_manifest(const std::string &text, const std::string &folder) {
  const std::string body = canonical(text);
  Json manifest = parsed(text, manifest_name);
  const std::string digest = text_of(manifest, "digest", manifest_name), shown = indented(body);
  const std::string line = "\n \"digest\": \"" + digest + "\",";
  const size_t at = text.find(line);
  const std::string without = at == std::string::npos ? text : text.substr(0, at) + text.substr(at + line.size());
  if (sha256(body) != digest || without != shown)
    fail(ETL_BUNDLE, folder + "/manifest.json was altered or damaged (its digest does not match)");
  if (number_of(manifest, "schema", manifest_name) != 3)
    fail(ETL_BUNDLE, folder + " is a bundle of another schema, and this runner reads 3: export it again");
  return manifest;
}

// --- what the runner reads of a bundle ---

std::vector<std::string> read_labels(const Json &record) {
  std::vector<std::string> labels;
  if (!record.is_array()) malformed("labels.json", "it");
  for (const Json &label : record) {
    if (!label.is_string()) malformed("labels.json", "a label");
    labels.push_back(label.get<std::string>());
  }
  return labels;
}

Task task_of(const std::string &kind) {
  if (kind == "classification") return {"", Answer::one_class, "logits", {}};
  if (kind == "multi-label") return {"", Answer::several_labels, "logits", {}};
  if (kind == "regression") return {"", Answer::value, "values", {}};
  fail(ETL_UNSUPPORTED, "the task '" + kind.substr(0, 100) + "' is not served by the C runner: use edgetl's Python");
}

std::vector<Task> tasks_of(const std::string &name, const std::vector<std::string> &labels) {
  std::vector<Task> tasks;
  if (name.find(':') == std::string::npos) {
    tasks.push_back(task_of(name));
    tasks.back().labels = labels;
    return tasks;
  }
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('+', begin), name.size());
    if (tasks.size() == most_tasks) malformed(manifest_name, "task");
    const std::string pair = name.substr(begin, end - begin), own = pair.substr(0, pair.find(':'));
    if (own.size() == pair.size()) malformed(manifest_name, "task");
    Task task = task_of(pair.substr(own.size() + 1));
    task.name = task.output = own;
    const std::string prefix = own + ": ";
    for (const std::string &label : labels)
      if (label.compare(0, prefix.size(), prefix) == 0) task.labels.push_back(label.substr(prefix.size()));
    tasks.push_back(std::move(task));
    begin = end + 1;
  }
  return tasks;
}

template <size_t N>
int choice(const Json &record, const char *field, const char *const (&known)[N]) {
  const std::string value = text_of(record, field, "preprocess.json");
  for (size_t i = 0; i < N; i++)
    if (value == known[i]) return static_cast<int>(i);
  malformed("preprocess.json", field);
}

int32_t side(const Json &record, const char *field) {
  const int64_t value = number_of(record, field, "preprocess.json");
  if (value < 1 || value > longest_side) malformed("preprocess.json", field);
  return static_cast<int32_t>(value);
}

etl_definition read_picture(const Json &record, bool &by_content) {
  static const char *const modes[] = {"shorter", "squash", "letterbox", "longest"};
  static const char *const filters[] = {"nearest", "bilinear", "bicubic", "lanczos"};
  static const char *const orders[] = {"RGB", "BGR", "L"};
  const int64_t version = record.contains("version") ? number_of(record, "version", "preprocess.json") : 1;
  if (version != 2 && version != 3)
    fail(ETL_UNSUPPORTED, "the C runner reads preprocessing of versions 2 and 3: export the bundle again");
  by_content = version >= 3;
  etl_definition d{};
  d.height = side(record, "height");
  d.width = side(record, "width");
  d.resize = side(record, "resize");
  d.mode = static_cast<etl_mode>(choice(record, "mode", modes));
  d.filter = static_cast<etl_filter>(choice(record, "interpolation", filters));
  d.order = static_cast<etl_order>(choice(record, "channels", orders));
  const Json pad = record.value("pad", Json());
  if (!pad.is_array() || pad.size() != 3) malformed("preprocess.json", "pad");
  for (size_t i = 0; i < 3; i++) {
    if (!pad[i].is_number_integer() || pad[i] < 0 || pad[i] > 255) malformed("preprocess.json", "pad");
    d.pad[i] = pad[i].get<uint8_t>();
  }
  if (int64_t{d.height} * d.width > most_pixels) malformed("preprocess.json", "height times width");
  const int32_t least = d.mode == ETL_SQUASH ? std::min(d.height, d.width) : std::max(d.height, d.width);
  if (d.resize < least || (d.mode >= ETL_LETTERBOX && d.resize != least)) malformed("preprocess.json", "resize");
  return d;
}

// The suffix that a runtime's models have, and that of the file beside it that it opens as well; "" for none.
std::pair<std::string, std::string> suffixes(const Artifact &artifact) {
  const bool graph = artifact.file.size() > 4 && artifact.file.compare(artifact.file.size() - 4, 4, ".xml") == 0;
  if (artifact.backend == "openvino" && graph) return {".xml", ".bin"};
  if (artifact.backend == "litert") return {".tflite", ""};
  return {".onnx", ""};
}

Artifact artifact_of(const Json &manifest, const std::string &role, std::string &weights) {
  const Json all = manifest.value("artifacts", Json());
  if (!all.is_object() || !all.contains(role)) fail(ETL_BUNDLE, "the bundle has no " + role + " artifact");
  const Json &entry = all[role];
  Artifact artifact;
  artifact.backend = text_of(entry, "backend", manifest_name);
  artifact.file = text_of(entry, "file", manifest_name);
  artifact.precision = text_of(entry, "precision", manifest_name);
  artifact.device = text_of(entry, "device", manifest_name);
  const auto [suffix, beside] = suffixes(artifact);
  const size_t stem = artifact.file.size() - std::min(artifact.file.size(), suffix.size());
  if (artifact.file.compare(stem, suffix.size(), suffix) != 0)
    fail(ETL_BUNDLE, "the " + role + " model for " + artifact.backend + " is no " + suffix + " file: export it again");
  weights = beside.empty() ? "" : artifact.file.substr(0, stem) + beside;
  return artifact;
}

// Hash every file that the manifest lists, and keep those that are wanted.
std::map<std::string, Held> checked_files(const std::string &folder, const Json &manifest, const Hashes &vouched,
                                          const std::set<std::string> &wanted) {
  const Json files = manifest.value("files", Json());
  if (!files.is_object()) malformed(manifest_name, "files");
  std::map<std::string, Held> found;
  for (const auto &[name, entry] : files.items()) {
    const std::string path = below(folder, name, ETL_BUNDLE);
    if (path.empty()) fail(ETL_BUNDLE, folder + " lacks " + name + again);
    Held held = hashed(path, wanted.count(name) != 0, ETL_BUNDLE);
    check_signed(vouched, name, held.sha256);
    if (held.sha256 != text_of(entry, "sha256", manifest_name) ||
        held.bytes != static_cast<uint64_t>(number_of(entry, "bytes", manifest_name)))
      fail(ETL_BUNDLE, path + " is altered or damaged (its SHA-256 differs)" + again);
    found.emplace(name, std::move(held));
  }
  // Records stand in no manifest; a signature covers them all the same.
  for (const auto &[name, hash] : vouched)
    if (found.count(name) == 0 && name != manifest_name)
      check_signed(vouched, name, hashed(below(folder, name, ETL_SIGNATURE), false, ETL_SIGNATURE).sha256);
  return found;
}

const Held &wanted_file(const std::map<std::string, Held> &files, const std::string &name) {
  const auto found = files.find(name);
  if (found == files.end()) fail(ETL_BUNDLE, "the bundle has no " + name + ": export it again");
  return found->second;
}

// A model must be of the kind that its name says: runtimes go by the content, and one that begins otherwise would not be
// looked through for names of other files.
void refuse_references(const Artifact &artifact) {
  const std::string suffix = ".onnx";
  if (suffixes(artifact).first == ".xml" && artifact.model.compare(0, 1, "<") != 0)
    fail(ETL_BUNDLE, "the model " + artifact.file + " is no XML: export the bundle again");
  if (artifact.file.size() < suffix.size() ||
      artifact.file.compare(artifact.file.size() - suffix.size(), suffix.size(), suffix) != 0)
    return;
  for (const std::string &name : external_files(artifact.model))
    fail(ETL_UNSUPPORTED, "the model keeps tensors in another file ('" + name.substr(0, 100) + "'): store them in it");
}

}  // namespace

std::string sha256(const std::string &data) {
  Digest digest;
  digest.add(data.data(), data.size());
  return digest.text();
}

void read_file(const char *path, uint64_t most, etl_status status, std::string &content) {
  // Without waiting: a named pipe that nobody writes to would be waited for for ever, and is refused below.
  const OpenFile file{open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
  struct stat kind{};
  if (file.number < 0 || fstat(file.number, &kind) != 0) fail(status, std::string("there is no file ") + path);
  if (!S_ISREG(kind.st_mode)) fail(status, std::string(path) + " is no file");
  if (static_cast<uint64_t>(kind.st_size) > most)
    fail(status, std::string(path) + " has " + std::to_string(kind.st_size) + " bytes: " + std::to_string(most) +
                     " are the most");
  content.resize(static_cast<size_t>(kind.st_size));
  for (size_t at = 0; at < content.size();) {
    errno = 0;
    const ssize_t got = read(file.number, content.data() + at, content.size() - at);
    if (got <= 0 && errno != EINTR) fail(status, std::string("cannot read ") + path);
    if (got > 0) at += static_cast<size_t>(got);
  }
}

std::map<std::string, Array> read_golden(const Bundle &bundle) {
  if (bundle.golden.empty()) fail(ETL_BUNDLE, bundle.folder + " has no golden vectors: export it again");
  const std::string path = below(bundle.folder, bundle.golden, ETL_BUNDLE);
  const Held held = hashed(path, true, ETL_BUNDLE);
  if (held.sha256 != bundle.golden_sha256) fail(ETL_BUNDLE, path + " was altered since the bundle was opened");
  return read_npz(held.content);
}

Bundle open_bundle(const std::string &folder, const std::string &role, const uint8_t *key) {
  const Hashes vouched = key != nullptr ? signed_hashes(folder, key) : Hashes{};
  const std::string path = below(folder, manifest_name, ETL_BUNDLE);
  if (path.empty()) fail(ETL_BUNDLE, folder + " is not a bundle (it has no manifest.json)");
  std::string text;
  read_file(path.c_str(), most_json, ETL_BUNDLE, text);
  check_signed(vouched, manifest_name, key != nullptr ? sha256(text) : "");
  const Json manifest = read_manifest(text, folder);
  // Answers without them would name the wrong classes.
  if (!below(folder, "enrolled.head", ETL_BUNDLE).empty())
    fail(ETL_UNSUPPORTED, folder + " has classes that were added on the device, which the C runner does not read: "
                          "take them away with edgetl forget, or use the Python runtime");

  Bundle bundle;
  std::string weights;
  bundle.folder = folder;
  bundle.digest = text_of(manifest, "digest", manifest_name);
  bundle.task = text_of(manifest, "task", manifest_name);
  bundle.target = text_of(manifest.value("target", Json::object()), "name", manifest_name);
  bundle.artifact = artifact_of(manifest, role, weights);
  auto files = checked_files(folder, manifest, vouched,
                             {"labels.json", "preprocess.json", bundle.artifact.file, weights});
  bundle.tasks = tasks_of(bundle.task, read_labels(parsed(wanted_file(files, "labels.json").content, "labels.json")));
  const Json input = parsed(wanted_file(files, "preprocess.json").content, "preprocess.json");
  const std::string kind = input.is_object() && input.contains("kind") ? text_of(input, "kind", "preprocess.json") : "image";
  if (kind == "image") bundle.picture = read_picture(input, bundle.by_content);
  else if (kind != "tensor") fail(ETL_UNSUPPORTED, "the C runner reads pictures and arrays, no " + kind.substr(0, 100));
  if (files.count("golden.npz") != 0) {
    bundle.golden = "golden.npz";
    bundle.golden_sha256 = files["golden.npz"].sha256;
  }
  bundle.artifact.model = wanted_file(files, bundle.artifact.file).content;
  if (!weights.empty()) bundle.artifact.weights = wanted_file(files, weights).content;
  refuse_references(bundle.artifact);
  return bundle;
}

}  // namespace etl
