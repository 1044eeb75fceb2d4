//! Recipes: which layer of a model is quantized how.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::LayerMethod;
use crate::{
    calibrate::{Calibrator, MeanSquaredError},
    scheme::Scheme,
};

/// How a layer is quantized: a scheme and a method for its weights, and a scheme for its inputs if
/// these are quantized too.
#[derive(Debug, Clone)]
pub struct Treatment {
    scheme: Scheme,
    method: Arc<dyn LayerMethod>,
    activations: Option<Scheme>,
    activation_calibrator: Arc<dyn Calibrator>,
}

impl Treatment {
    /// Weights alone.
    #[must_use]
    pub fn new(scheme: Scheme, method: impl LayerMethod + 'static) -> Self {
        Self {
            scheme,
            method: Arc::new(method),
            activations: None,
            activation_calibrator: Arc::new(MeanSquaredError::default()),
        }
    }

    /// Inputs too: per row, with ranges chosen at run time; or under parameters fixed ahead, for
    /// which a calibrator reads a histogram of the inputs as the layer's transform leaves them
    /// ([`MeanSquaredError`] unless [set](Self::with_activation_calibrator)).
    #[must_use]
    pub fn with_activations(mut self, scheme: Scheme) -> Self {
        self.activations = Some(scheme);
        self
    }

    /// Another choice of the ranges that are fixed ahead.
    ///
    /// ```
    /// use lowbit::{Scheme, calibrate::Percentile, flow::{Pipeline, Treatment}};
    /// let inputs = Scheme::int(8).unsigned().asymmetric().build()?;
    /// let treatment = Treatment::new(Scheme::int(8).per_axis(0).build()?, Pipeline::nearest())
    ///     .with_activations(inputs)
    ///     .with_activation_calibrator(Percentile::default());
    /// # let _ = treatment;
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn with_activation_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.activation_calibrator = Arc::new(calibrator);
        self
    }

    /// Who chooses the ranges of inputs that are fixed ahead.
    #[must_use]
    pub fn activation_calibrator(&self) -> &dyn Calibrator {
        &*self.activation_calibrator
    }

    /// The scheme of the weights.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &dyn LayerMethod {
        &*self.method
    }

    /// The scheme of the inputs, if they are quantized.
    #[must_use]
    pub fn activations(&self) -> Option<&Scheme> {
        self.activations.as_ref()
    }
}

/// Rules that say, by the names of layers, what is quantized how: the first rule whose pattern
/// matches a name decides.
///
/// In a pattern, `*` stands for any characters, dots among them, and `?` for one; all else for
/// itself. A layer that no rule matches stays in float, and [`plan`](Self::plan) reports it.
///
/// ```
/// use lowbit::{Scheme, flow::{Pipeline, Recipe, Treatment}};
///
/// let (three, four) = (Scheme::int(3).per_group(128).build()?, Scheme::int(4).per_axis(0).build()?);
/// let recipe = Recipe::new()
///     .leave("lm_head")
///     .quantize("*.down_proj", Treatment::new(four, Pipeline::gptq()))
///     .quantize("model.layers.*", Treatment::new(three, Pipeline::gptq()));
///
/// let plan = recipe.plan(["model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj", "odd"]);
/// assert_eq!(recipe.treatment("model.layers.0.mlp.down_proj").unwrap().scheme(), &four);
/// assert_eq!(plan.unmatched_layers, ["odd"]);
/// assert_eq!(plan.unused_rules, ["lm_head"]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: String,
    /// None leaves the layer in float.
    treatment: Option<Treatment>,
}

impl Recipe {
    /// A recipe without rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule: layers of such names are quantized so.
    #[must_use]
    pub fn quantize(mut self, pattern: impl Into<String>, treatment: Treatment) -> Self {
        self.rules.push(Rule {
            pattern: pattern.into(),
            treatment: Some(treatment),
        });
        self
    }

    /// Adds a rule: layers of such names stay in float.
    #[must_use]
    pub fn leave(mut self, pattern: impl Into<String>) -> Self {
        self.rules.push(Rule {
            pattern: pattern.into(),
            treatment: None,
        });
        self
    }

    /// How the layer of this name is quantized; none if it stays in float.
    #[must_use]
    pub fn treatment(&self, layer: &str) -> Option<&Treatment> {
        self.rule(layer)
            .and_then(|rule| self.rules[rule].treatment.as_ref())
    }

    fn rule(&self, layer: &str) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| matches(&rule.pattern, layer))
    }

    /// Whether any layer at all may need this statistic.
    pub(super) fn any(&self, has: impl Fn(&Treatment) -> bool) -> bool {
        let mut treatments = self.rules.iter().filter_map(|rule| rule.treatment.as_ref());
        treatments.any(has)
    }

    /// What the rules make of these layers.
    pub fn plan<'a>(&self, layers: impl IntoIterator<Item = &'a str>) -> Plan {
        let mut used = BTreeSet::new();
        let mut plan = Plan::default();
        for layer in layers {
            match self.rule(layer) {
                None => plan.unmatched_layers.push(layer.to_owned()),
                Some(rule) => {
                    used.insert(rule);
                    let list = match self.rules[rule].treatment {
                        Some(_) => &mut plan.quantized_layers,
                        None => &mut plan.float_layers,
                    };
                    list.push(layer.to_owned());
                }
            }
        }
        let rules = self.rules.iter().enumerate();
        let unused = rules.filter(|(index, _)| !used.contains(index));
        plan.unused_rules = unused.map(|(_, rule)| rule.pattern.clone()).collect();
        plan
    }
}

/// What a [`Recipe`] makes of the layers of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Plan {
    /// Layers that are quantized.
    pub quantized_layers: Vec<String>,
    /// Layers that a rule leaves in float.
    pub float_layers: Vec<String>,
    /// Layers that stay in float because no rule matches them.
    pub unmatched_layers: Vec<String>,
    /// The patterns of rules that decide for no layer, because they match none or an earlier one
    /// does.
    pub unused_rules: Vec<String>,
}

impl fmt::Display for Plan {
    /// Some lines for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quantized, float) = (self.quantized_layers.len(), self.float_layers.len());
        write!(f, "{quantized} layers to quantize, {float} left in float")?;
        for layer in &self.unmatched_layers {
            write!(f, "\nno rule for the layer {layer:?}: it stays in float")?;
        }
        for rule in &self.unused_rules {
            write!(f, "\nno layer for the rule {rule:?}")?;
        }
        Ok(())
    }
}

/// Whether a name fits a pattern; the work is bounded by the product of their lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut position) = (0, 0);
    // Where to go on if the last star has to stand for one more character.
    let mut retry = None;
    while position < name.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, position));
                at += 1;
            }
            Some(&c) if c == '?' || c == name[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((after, start)) = retry else {
                    return false;
                };
                retry = Some((after, start + 1));
                (at, position) = (after, start + 1);
            }
        }
    }
    pattern[at..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.q_proj", "model.layers.0.self_attn.q_proj", true),
            ("layers.1.*", "layers.10.x", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b*", "xbxxax", false),
            ("é?", "éü", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }
}
