//! Which layers a recipe quantizes, and what it reports of the others.

use lowbit::flow::{ModelQuantization, Pipeline, Recipe, Treatment};

use super::support::{Model, samples, scheme};

#[test]
fn the_first_rule_that_matches_decides() {
    let recipe = Recipe::new()
        .leave("blocks.0.*")
        .quantize("*.down", Treatment::new(scheme(8), Pipeline::nearest()))
        .quantize("blocks.?.*", Treatment::new(scheme(3), Pipeline::gptq()));
    let mut model = Model::random(2, 1);
    let report = ModelQuantization::new(&recipe)
        .run(&mut model, samples(2))
        .unwrap();

    assert!(
        model.0[0]
            .layers
            .iter()
            .all(|layer| layer.quantized.is_none())
    );
    let done: Vec<(&str, &str)> = report
        .layers
        .iter()
        .map(|layer| (&*layer.layer, &*layer.method))
        .collect();
    assert_eq!(
        done,
        [
            ("blocks.1.gate", "gptq"),
            ("blocks.1.up", "gptq"),
            ("blocks.1.down", "rtn"),
        ]
    );
    let bits = |index: usize| model.quantized()[index].weights().scheme().bits();
    assert_eq!([bits(0), bits(1), bits(2)], [3, 3, 8]);
    assert_eq!(report.plan.float_layers.len(), 3);
}

#[test]
fn rules_without_a_layer_and_layers_without_a_rule_are_reported() {
    let recipe = Recipe::new()
        .quantize("*.down", Treatment::new(scheme(4), Pipeline::nearest()))
        .leave("*.down")
        .leave("lm_head");
    let mut model = Model::random(1, 1);
    let report = ModelQuantization::new(&recipe)
        .run(&mut model, samples(2))
        .unwrap();
    assert_eq!(report.plan.quantized_layers, ["blocks.0.down"]);
    assert_eq!(
        report.plan.unmatched_layers,
        ["blocks.0.gate", "blocks.0.up"]
    );
    assert_eq!(report.plan.unused_rules, ["*.down", "lm_head"]);
    let text = report.to_string();
    assert!(text.contains("no rule for the layer \"blocks.0.up\""));
    assert!(text.contains("no layer for the rule \"lm_head\""));
}

#[test]
fn the_name_of_a_pipeline_reads_back() {
    for text in [
        "rtn",
        "mse+rtn",
        "hqq",
        "ls+hqq",
        "full+hqq",
        "smooth=0.75+rtn",
        "rotate=7+gptaq",
        "awq+mse+rtn",
        "rotate=7+gptq",
        "full+gptq",
        "gptaq",
        "rtn+quantease",
        "full+rtn+quantease",
        "compensate=0.5,0.1+gptq+signround",
        "gptq+adaround",
    ] {
        let pipeline: Pipeline = text.parse().unwrap();
        assert_eq!(pipeline.to_string(), text);
        assert_eq!(pipeline.to_string().parse::<Pipeline>().unwrap(), pipeline);
    }
    for text in [
        "",
        "gptq+",
        "best+rtn",
        "rotate=x",
        "smooth=2",
        "smooth=x",
        "compensate=2,0.1",
        "compensate=1",
        "gptq=3",
        "gptq=",
        "rotate=",
        "compensate=1,NaN",
    ] {
        assert!(text.parse::<Pipeline>().is_err(), "{text}");
    }
}
