"""SAM+FeatUp: features upsampled to high resolution by joint bilateral upsampling or an implicit network."""
