// The command line's values, one plain struct a subcommand. main.cc fills them; the cmd_*.cc files read them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace addp {

// Of every subcommand that computes.
struct CommonOptions {
  std::string device = "cpu";  // or what cuda_backend_name() says: "cuda", or "emulated" without a GPU
  std::string matmul = "f32";  // f32, tf32 or bf16: how exactly the device multiplies matrices
  int threads = 0;             // 0: ADDP_THREADS, else the number of cores
  uint64_t seed = 1;
};

// How the configuration comes about: preset, or a resumed run's own < --config file < --set < flags.
struct ConfigOptions {
  std::string preset = "demo";         // tiny | demo | small | base | large
  std::string file;                    // JSON object of fields
  std::vector<std::string> set;        // name=value
  std::vector<std::string> stage_set;  // name=value inside the trained stage's part of the configuration
};

struct DataOptions {
  std::string data = "fashion-mnist";  // fashion-mnist | shapes | scenes | a folder; empty: what the run was trained on
  int64_t limit = 0;                   // train: use the first N training images only; 0: all
};

struct TrainOptions {
  CommonOptions common;
  ConfigOptions config;
  DataOptions data;
  std::string stage;      // one of stage_names()
  std::string run;        // run folder
  std::string tokenizer;  // run folder of a tokenizer; predictor, addp and gpt need it
  std::string predictor;  // likewise of the token predictor; addp needs it
  std::string encoder;    // run folder of a pre-trained encoder, or none; the recognition stages need it
  std::string lpips;      // VGG16 and LPIPS weights, optional, tokenizers only
  bool resume = false, overwrite = false;
  bool profile = false;                                        // tell where the time and the memory of a step go
  int64_t log_every = 20, sample_every = 0, save_every = 200;  // steps; sample_every 0: four times a run
  int64_t keep = 2;                                            // checkpoints kept
};

struct SampleOptions {
  CommonOptions common;
  std::string run;        // run folder of ADDP training; the tokenizer is found through its configuration
  std::string tokenizer;  // overrides the run's
  std::string out;        // folder for the pictures; default RUN/samples
  int64_t count = 64, batch = 32;
  int64_t steps = 0;        // 0: the configuration's
  double temperature = -1;  // of the choice of places, in causal models of the codes; negative: the configuration's
  int64_t top_k = 0;        // causal models: draw from the k likeliest codes; 0: the configuration's
  double top_p = 0;         // draw from the likeliest codes that sum to this; 1: from all; 0: the configuration's
  std::string schedule;     // cosine | linear; empty: the configuration's
  bool static_temperature = false, soft_end = false;
  std::string inpaint;  // keep a region of test images: left | top | border | center; empty: from nothing
  DataOptions data;     // for --inpaint
};

struct ReconstructOptions {
  CommonOptions common;
  std::string run, out;
  DataOptions data;
  int64_t count = 32;
};

struct EvaluateOptions {
  CommonOptions common;
  std::vector<std::string> runs;    // run folders of systems that generate, and of tokenizers
  std::string images;               // or a folder of images
  std::string features;             // run folder of a classifier, or a file with InceptionV3's weights
  DataOptions data = {.data = ""};  // whose test split is compared with; empty: the run's, or the classifier's
  int64_t count = 0;                // N; 0: half of the test split, at most 2000
  int64_t batch = 32;               // images at a time, as `sample` draws them
  int64_t steps = 0;                // of the sampler of ADDP and MAGE; 0: the run's
  std::string out;                  // folder for what was found; empty: the run's
};

struct ProbeOptions {
  CommonOptions common;
  std::string run;              // run folder of any system
  bool random_weights = false;  // the features before training, as a control
  DataOptions data;
  int64_t train = 0, test = 0;  // images used; 0: all
  int64_t steps = 0;            // of training the classifier; 0: the configuration's
};

struct KnnOptions {
  CommonOptions common;
  std::string run;  // of a trained system
  DataOptions data;
  int64_t train = 0, test = 0;  // images used; 0: all
  bool random_weights = false;  // the control that features must beat
  int64_t k = 20;
  double temperature = 0.07;  // of the weights exp(cosine / temperature); 0: every neighbour has one vote
};

// addp compare and addp ablate.
struct CompareOptions {
  CommonOptions common;  // seed: the first repetition's
  ConfigOptions config;
  DataOptions data;
  std::string run;      // folder of the whole comparison
  bool resume = false;  // go on with what is there
  int64_t seeds = 2;    // repetitions
  int jobs = 1;         // at a time; they share the threads
  std::string budget;   // steps:N | seconds:N, of all stages of a system; empty: the preset's for ADDP
  std::string plan;     // file with the steps and learning rates of another comparison, instead of a budget
  std::vector<std::string> systems;  // keys of system_kinds(); empty: all
  std::vector<std::string> tasks;    // of task_names(); empty: all
  std::vector<std::string> labels;   // percentages of labels to fine-tune with; empty: 1
  int64_t task_steps = 0;            // of fine-tuning, segmentation and detection; 0: the configuration's
  int64_t train = 10000, test = 0;   // images of probe and k-NN; 0: all
  int64_t images = 1000;             // generated ones that are judged
  std::string features;              // what judges them, as EvaluateOptions; empty: a classifier is trained
  bool sweep = false;                // half, once and twice each learning rate first, in a quarter of the steps
};

}  // namespace addp
